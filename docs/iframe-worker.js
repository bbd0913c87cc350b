// Search in the site as it is opened from a folder: a browser starts no worker from a file, so the
// worker's script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      this.loaded = new Promise((resolve) => {
        inside.document.open();
        inside.postMessage = undefined;
        inside.document.write("<!doctype html><html><body></body></html>");
        inside.document.close();
        const answer = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        Object.defineProperty(inside, "postMessage", { value: answer, configurable: true });
        inside.importScripts = (...scripts) => scripts.reduce((done, src) => done.then(() => new Promise((ok, wrong) => {
          const script = inside.document.createElement("script");
          script.src = new URL(src, url).href;
          script.onload = ok;
          script.onerror = wrong;
          inside.document.body.append(script);
        })), Promise.resolve());
        const script = inside.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        inside.document.body.append(script);
      });
    }
    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() { this.frame.remove(); }
  };
  window.Worker = window.IFrameWorker;
}
