# Written by workbench; its context lies beside it. Build it with BuildKit, without a network:
#   docker build --network=none --tag mini-lm.v2 .

# --- The build stage: the locked wheels, each checked against its sha256. Only /out leaves this stage.
FROM workbench.local/base:0123456789ab AS wheels
# A base may name another user, who could not write /out. No container ever runs as this stage's user.
# hadolint ignore=DL3002
USER 0:0
WORKDIR /build
# Wheels and unpacking code are mounted, so neither is ever part of a layer; the base has no shell, hence the exec form.
RUN --mount=type=bind,source=build,target=/build \
    --mount=type=bind,source=wheels,target=/wheels \
    ["/usr/bin/python3.11", "-B", "-m", "workbench.image.unpack_wheels", "/build/wheels.json", "/wheels", "/build/omit.txt", "/out", "1700000000"]

# --- All sources. Nothing runs in this stage and in the last, so the image holds what they list and nothing else.
# Each line is one layer, in the order of how seldom it changes: all layers above a changed one are made again.
FROM workbench.local/base:0123456789ab AS sources
# By far the largest, and another only when a locked version changes.
COPY --from=wheels /out/ /
# A few KiB of source, another with each version of workbench; above the wheels, which it thereby never touches.
ADD server.tar /

# --- Their bytecode, by the image's own Python. Only /out leaves this stage.
FROM sources AS bytecode
# As above.
# hadolint ignore=DL3002
USER 0:0
RUN --mount=type=bind,source=build,target=/build \
    ["/usr/bin/python3.11", "-S", "-B", "-P", "-W", "ignore", "/build/workbench/image/compile_sources.py", "/", "/out", "1700000000"]

# --- The image.
FROM sources AS runtime
# Without it each start would compile what it loads: the root is read-only.
COPY --from=bytecode /out/ /
# Last, for it changes most often: a new model is one new layer, and nothing else is built, sent or pulled again.
# Both are tars, for what is unpacked keeps its times, where a folder that is copied gets the time of its transfer.
ADD model.tar /

# Configuration makes no layers. What changes with every model, its label, stands last.
ENV HOME="/tmp" \
    NVIDIA_DRIVER_CAPABILITIES="compute,utility" \
    NVIDIA_VISIBLE_DEVICES="all" \
    OMP_NUM_THREADS="1" \
    OPENBLAS_NUM_THREADS="1" \
    ORT_DISABLE_TELEMETRY="1" \
    PATH="/usr/local/bin:/usr/bin:/bin" \
    PYTHONDONTWRITEBYTECODE="1" \
    PYTHONPATH="/opt/wheels:/app" \
    PYTHONPYCACHEPREFIX="/bytecode" \
    PYTHONSAFEPATH="1" \
    PYTHONUNBUFFERED="1" \
    PYTHONUTF8="1" \
    SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt" \
    WORKBENCH_DEVICE="cuda" \
    WORKBENCH_HOST="0.0.0.0" \
    WORKBENCH_MODELS="/models" \
    WORKBENCH_PORT="9000"
WORKDIR /
USER 65532:65532
EXPOSE 9000/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/bin/python3.11", "-S", "/app/workbench/server/health.py"]
ENTRYPOINT ["/usr/bin/python3.11", "-m", "workbench.server"]
LABEL org.opencontainers.image.title="mini-lm.v2" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      workbench.version="1.2.3" \
      workbench.model="sha256:5555555555555555555555555555555555555555555555555555555555555555"
