# The command tqb on a CPU, with every extra that needs no cluster:
#   docker build -t tqb .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/runs" tqb run -m strategy=none,ptq_int8,qat
# Runs, cache and files are kept in the folder that is mounted at /runs.

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY experiments experiments
COPY hydra_plugins hydra_plugins
RUN python -m venv /opt/tqb \
    && /opt/tqb/bin/pip install --no-cache-dir -c constraints.txt '.[joblib,excel,parquet,int4,postgres]'

FROM python:3.11-slim
LABEL org.opencontainers.image.title="tflite-quantization-bench" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-SA-3.0"
COPY --from=build /opt/tqb /opt/tqb
# Any user may run it, without an account or a home folder in here.
ENV PATH=/opt/tqb/bin:$PATH \
    HOME=/tmp \
    USER=tqb \
    PYTHONUNBUFFERED=1
WORKDIR /runs
RUN chmod 1777 /runs
ENTRYPOINT ["tqb"]
CMD ["--help"]
