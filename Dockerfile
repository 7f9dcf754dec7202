# Container image of vireid.
#
#   docker build -t vireid:cpu .
#   docker build -t vireid:gpu --build-arg EXTRA=gpu .
#
# EXTRA  cpu or gpu: selects the lock file to install. The gpu image needs no CUDA base image, because the lock file
#        includes CUDA and cuDNN wheels; the host must have the driver and the NVIDIA container toolkit.
# BASE   a Debian-like image with Python 3.11 or newer and its venv module.
# DIGEST its digest, sha256:…, so that every build has the same base; `docker buildx imagetools inspect BASE` prints it.
#
# The image holds its software bill of materials: /opt/vireid/sbom.cdx.json, CycloneDX, made from the lock file.
ARG BASE=python:3.11-slim
ARG DIGEST=

FROM ${BASE}${DIGEST:+@${DIGEST}} AS build
ARG EXTRA=cpu
WORKDIR /src
# pip is in a separate environment, so that the final image does not contain it.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/vireid
COPY requirements/${EXTRA}.lock requirements.lock
# --no-deps: the lock file is complete, and pip 23.0's resolver considers 26.06.* and 26.6.0 to be in conflict.
RUN /pip/bin/pip --python /opt/vireid install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        -r requirements.lock \
    && find /opt/vireid -type d -name tests -prune -exec rm -r {} +
COPY . .
RUN python3 -m venv --without-pip /sbom \
    && /pip/bin/pip --python /sbom install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        -r requirements/sbom.lock \
    && /sbom/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
        --output-file /opt/vireid/sbom.cdx.json
RUN /pip/bin/pip --python /opt/vireid install --no-cache-dir --no-deps .

FROM ${BASE}${DIGEST:+@${DIGEST}}
ARG EXTRA=cpu
LABEL org.opencontainers.image.title="vireid" \
      org.opencontainers.image.description="Search for people across day and night cameras (${EXTRA})" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The image needs no package installer at run time. /data is the only folder that the server writes to.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin vireid \
    && install --directory --owner=vireid --group=vireid --mode=700 /data
COPY --from=build /opt/vireid /opt/vireid
# Listening on a non-loopback address requires API keys; the first start logs the admin key once.
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
    CMD ["python3", "-Im", "server.health_check"]
ENTRYPOINT ["vireid"]
CMD ["serve"]
