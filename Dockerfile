# vireid in a container.
#
#   docker build -t vireid:cpu .
#   docker build -t vireid:gpu --build-arg EXTRA=gpu .
#
# EXTRA  cpu or gpu: which lock file is installed. The gpu image needs no CUDA base image, because the nvidia wheels
#        of the lock file bring CUDA and cuDNN; the host brings the driver and the NVIDIA container toolkit.
# BASE   a Debian-like image with Python 3.11 or newer and its venv module.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG EXTRA=cpu
WORKDIR /src
# pip lives in an environment of its own, so that the one that is shipped has none.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/vireid
COPY requirements/${EXTRA}.lock requirements.lock
# The lock file is complete, and only uv wrote it: pip's own resolver (23.0) finds a conflict between 26.06.* and 26.6.0.
RUN /pip/bin/pip --python /opt/vireid install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        -r requirements.lock \
    && find /opt/vireid -type d -name tests -prune -exec rm -r {} +
COPY . .
RUN /pip/bin/pip --python /opt/vireid install --no-cache-dir --no-deps .

FROM ${BASE}
ARG EXTRA=cpu
LABEL org.opencontainers.image.title="vireid" \
      org.opencontainers.image.description="Search for people across day and night cameras (${EXTRA})" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# An image that only runs needs no installer of packages. /data is the one place the server writes to.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin vireid \
    && install --directory --owner=vireid --group=vireid --mode=700 /data
COPY --from=build /opt/vireid /opt/vireid
# Listening beyond loopback makes API keys compulsory: the first start prints the admin key, once, in the log.
ENV PATH=/opt/vireid/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VIREID_DATA_DIR=/data \
    VIREID_HOST=0.0.0.0 \
    VIREID_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python3", "-Ic", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['VIREID_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["vireid"]
CMD ["serve"]
