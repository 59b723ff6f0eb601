# The Python that the tests run on.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/llm.lock requirements/build.lock requirements/
RUN python -m venv /opt/tailrace \
    && /opt/tailrace/bin/pip install --require-hashes -r requirements/llm.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY service service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/tailrace/bin/pip install --no-deps /opt/wheels/*.whl

FROM python:${PYTHON_VERSION}-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/tailrace --shell /usr/sbin/nologin tailrace \
    && install -d -o tailrace -g tailrace -m 0750 /var/lib/tailrace
COPY --from=build /opt/tailrace /opt/tailrace
# The root file system may be read-only: all that is written goes to the volume and to /tmp.
ENV PATH=/opt/tailrace/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TAILRACE_DATA_DIR=/var/lib/tailrace
USER 10001:10001
WORKDIR /var/lib/tailrace
VOLUME /var/lib/tailrace
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["tailrace"]
# Without authentication this refuses to start, as the address is not loopback: who wants an open
# server says so with --allow-anonymous.
CMD ["serve", "--host", "0.0.0.0"]
