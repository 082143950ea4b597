# The users service under gunicorn. Every dependency is a binary wheel or pure Python, so no compiler is needed.
FROM python:3.14-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# 1000 is the id of the first user on most Linux machines. So the developer owns files that a command writes into the
# mounted code in development, such as a new migration.
RUN useradd --create-home --uid 1000 app

WORKDIR /usr/src/app

# In a layer of its own, so that a change of the code does not install the dependencies again.
COPY project/requirements.hashes.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.hashes.txt

COPY . .

USER app

EXPOSE 5000

# http.client, because urllib.request would use a proxy from the environment. The Host header is the first of
# TRUSTED_HOSTS if they are set, encoded as the service compares it (IDNA).
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; hosts = [*map(str.strip, os.environ.get('TRUSTED_HOSTS', '').split(',')), 'localhost']; host = next(filter(None, hosts)).lstrip('.').encode('idna').decode(); c = http.client.HTTPConnection('127.0.0.1', 5000, timeout=2); c.request('GET', os.environ.get('SCRIPT_NAME', '').strip() + '/health', headers={'Host': host}); sys.exit(c.getresponse().status != 200)"]

# gunicorn itself fails with a traceback if WEB_CONCURRENCY is not a number, before it reads gunicorn.conf.py.
# exec: gunicorn is process 1 and gets the signals of `docker stop` itself.
CMD ["sh", "-c", "set -f; set -- ${WEB_CONCURRENCY:-2}; case ${*:-2} in *[!0-9]*) echo 'WEB_CONCURRENCY must be a whole number from 1 to 1000, such as 2.' >&2; exit 1;; esac; export WEB_CONCURRENCY=${1:-2}; exec gunicorn -b 0.0.0.0:5000 manage:app"]
