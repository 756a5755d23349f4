# One image, several commands: worker, producer, and the health check of a worker.
#
# The first stage has the installer and its caches; only what it installed goes into the second.

ARG PYTHON_IMAGE=python:3.14-slim
FROM ${PYTHON_IMAGE} AS dependencies
COPY deploy/uv.txt /opt/installer/
RUN python -m venv /opt/installer \
 && /opt/installer/bin/pip install --no-cache-dir --quiet --require-hashes --requirement /opt/installer/uv.txt
WORKDIR /build
# only these two decide what is installed, so a change of code reinstalls nothing
COPY pyproject.toml uv.lock ./
COPY onloan/pyproject.toml onloan/
RUN /opt/installer/bin/uv export --frozen --no-dev --no-emit-workspace --quiet --output-file requirements.txt \
 && python -m venv --without-pip /opt/crosshost \
 && /opt/installer/bin/uv pip install --quiet --no-cache --require-hashes --compile-bytecode \
    --python /opt/crosshost/bin/python --requirement requirements.txt

FROM ${PYTHON_IMAGE} AS crosshost
LABEL org.opencontainers.image.title="crosshost" \
      org.opencontainers.image.description="One concurrency lab, three places to run it" \
      org.opencontainers.image.licenses="MIT"
ENV PATH="/opt/crosshost/bin:$PATH" PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN echo "crosshost:x:10001:10001::/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "crosshost:x:10001:" >> /etc/group \
 && mkdir /var/lib/crosshost && chown 10001:10001 /var/lib/crosshost
COPY --from=dependencies /opt/crosshost /opt/crosshost
WORKDIR /app
COPY onloan/src/onloan onloan
COPY lab lab
COPY worker worker
COPY producer producer
COPY course course
COPY exercises exercises
# Nothing can write byte code later, and without it every process would compile all that it imports: seconds of a core each.
# The import is for the standard library, which the public image brings without.
RUN python -m compileall -q onloan lab worker producer \
 && PYTHONDONTWRITEBYTECODE= python -c "import worker.app, producer.cli, producer.compare, multiprocessing.spawn"
USER 10001:10001
CMD ["python", "-m", "worker"]

# Flower and the page, for the profile "monitor" alone: what they need on top makes no other image larger.
FROM dependencies AS monitor-dependencies
RUN /opt/installer/bin/uv export --frozen --no-dev --group monitor --extra page --no-emit-workspace --quiet --output-file requirements.txt \
 && /opt/installer/bin/uv pip install --quiet --no-cache --require-hashes --compile-bytecode \
    --python /opt/crosshost/bin/python --requirement requirements.txt

FROM crosshost AS monitor
COPY --from=monitor-dependencies /opt/crosshost /opt/crosshost
COPY monitor monitor
CMD ["python", "-m", "monitor"]

# what is built when nobody names a stage
FROM crosshost
