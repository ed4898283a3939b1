FROM python:3.13-slim AS build

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt .
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt
# What your handlers need, if there is such a file; it cannot change the versions that Jobhook is tested with.
COPY requirements.txt requirements-handlers.tx[t] ./
RUN pip freeze > pinned.txt \
    && if grep -qs '^[^#]' requirements-handlers.txt; then \
        pip install --no-cache-dir --constraint pinned.txt -r requirements-handlers.txt; fi

WORKDIR /srv/jobhook
COPY app app
COPY workers workers
# Run from source: building a wheel would fetch a build backend that no hash in the lock covers.
# The source's hash, not its time, tells whether bytecode is stale: images and mounts change times.
RUN python -m compileall -q --invalidation-mode checked-hash app workers \
    && printf '#!/opt/venv/bin/python\nfrom app.cli import main\n\nif __name__ == "__main__":\n    main()\n' \
        > /opt/venv/bin/jobhook \
    && chmod 755 /opt/venv/bin/jobhook


# The same base: the virtual environment points at its Python.
FROM python:3.13-slim

LABEL org.opencontainers.image.title="Jobhook" \
      org.opencontainers.image.description="Receives JobsiteOn's webhooks" \
      org.opencontainers.image.licenses="MIT"
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
