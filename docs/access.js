// What the theme makes in the browser: wide tables can be scrolled by keyboard, and the search and
// each bar of buttons beside a block of code have names of their own.
const within = () => {
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((table) => {
    table.tabIndex = 0;
  });
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((bar, number) => {
    bar.setAttribute("aria-label", `Code ${bar.parentElement.id || number + 1}`);
  });
  document.querySelector(".md-search:not([aria-label])")?.setAttribute("aria-label", "Search");
};
new MutationObserver(within).observe(document.body, { childList: true, subtree: true });
within();
