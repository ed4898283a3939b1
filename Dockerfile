FROM python:3.13-slim AS build

# Seconds since 1970, the time of all files: with it, and the same base, the same source gives the same files, byte by byte.
# (Bytecode tells then by its source's hash, not by its time, whether it is stale.)
ARG SOURCE_DATE_EPOCH=1700000000
ENV SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build
# Without pip, which nothing needs later: the one of the base installs.
RUN python -m venv --without-pip /opt/venv
# What your handlers need, if there is such a file; it cannot change the versions that Jobhook is tested with.
COPY requirements.txt requirements-handlers.tx[t] ./
RUN pip="python -m pip --python /opt/venv/bin/python" \
    && $pip install --only-binary :all: --require-hashes -r requirements.txt \
    && $pip freeze --all > /opt/venv/installed.txt \
    && if grep -qs '^[^#]' requirements-handlers.txt; then \
        $pip install --constraint /opt/venv/installed.txt -r requirements-handlers.txt \
        && $pip freeze --all > /opt/venv/installed.txt; fi

WORKDIR /srv/jobhook
COPY app app
COPY workers workers
# Run from source: building a wheel would fetch a build backend that no hash in the lock covers.
RUN python -m compileall -q --invalidation-mode checked-hash app workers \
    && printf '#!/opt/venv/bin/python\nfrom app.cli import main\n\nif __name__ == "__main__":\n    main()\n' \
        > /opt/venv/bin/jobhook \
    && chmod 755 /opt/venv/bin/jobhook \
    && find /opt/venv /srv/jobhook -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +


# The same base: the virtual environment points at its Python.
FROM python:3.13-slim

# What `jobhook --version` says, and the commit: docker build --build-arg VERSION=… --build-arg REVISION=$(git rev-parse HEAD)
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Jobhook" \
      org.opencontainers.image.description="Receives JobsiteOn's webhooks" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim"
# The file system may be read-only: no bytecode is written, and what is needed is compiled already.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv/jobhook \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JOBHOOK_HOST=0.0.0.0
WORKDIR /srv/jobhook
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/jobhook /srv/jobhook

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["jobhook", "serve"]
