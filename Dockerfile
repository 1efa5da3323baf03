# One image for every role; EASYREMOTE_ROLES says which.
FROM python:3.11-slim

WORKDIR /app
COPY requirements/worker.txt requirements/worker.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/worker.txt
COPY pyproject.toml README.md CHANGELOG.md ./
COPY easyremote easyremote
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home --uid 10001 easyremote \
    && install -d -o easyremote /data
USER easyremote

# Faust's own banner and spinner are for terminals.
CMD ["faust", "-A", "easyremote", "worker", "-l", "warn"]
