FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY dertwin dertwin
COPY bench bench
COPY register_maps register_maps
COPY configs configs
RUN python -m venv /opt/dertwin && /opt/dertwin/bin/pip install --no-cache-dir .

FROM python:3.13-slim
# hadolint ignore=DL3008  # any socat of the base image's Debian does
RUN apt-get update \
    && apt-get install -y --no-install-recommends socat \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/dertwin /opt/dertwin
WORKDIR /app
COPY configs/*.json configs/
# For configs whose register_map_root is relative to the working directory.
COPY register_maps register_maps
ENV PATH=/opt/dertwin/bin:$PATH \
    CONFIG_PATH=/app/configs/simple_config.json
# Any user does, and none needs a name.
USER 10001:10001
# Not with Python, whose start takes time from the site each time.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["sh", "-c", "printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | socat -t2 - TCP:127.0.0.1:9555 | grep -q '^HTTP/[0-9.]* 200 '"]
ENTRYPOINT ["python", "-m", "bench.container"]
