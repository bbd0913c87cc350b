# The daily job in a container: docs/how-to/unattended.md.
#     docker build -t deqfolio .
#     docker run --rm --read-only --tmpfs /tmp -v deqfolio:/state deqfolio orders runs/live ...
FROM python:3.12-slim

COPY . /source
# An index with torch for CPUs alone makes a tenth of the size: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir /source && rm -r /source

# Kernels are compiled here, once. At run time they are copied to /tmp where this cannot be written.
ENV NUMBA_CACHE_DIR=/opt/deqfolio/kernels \
    DEQFOLIO_STORAGE=sqlite:////state/trials.sqlite3 \
    DEQFOLIO_DATA=/state/data \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
RUN mkdir -p /opt/deqfolio/kernels /state && deqfolio warm-up && chmod -R a+rX /opt/deqfolio \
    && chown 10001:10001 /state

USER 10001:10001
VOLUME /state
WORKDIR /state
ENTRYPOINT ["deqfolio"]
CMD ["--help"]
