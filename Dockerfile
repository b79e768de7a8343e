# A bundle behind HTTP, on CPUs: docker build -t foldstack . && docker run --read-only --tmpfs /tmp -p 8000:8000 foldstack
# docs/deploy.md says more. Nothing that trains is in it.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

WORKDIR /app
COPY serving/requirements.lock serving/requirements.lock
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r serving/requirements.lock

COPY serving serving
COPY stages/__init__.py stages/__init__.py
COPY stages/running/__init__.py stages/running/atomic.py stages/running/errors.py stages/running/
COPY stages/images/__init__.py stages/images/__init__.py
COPY stages/images/decoding/__init__.py stages/images/decoding/__init__.py
# The user can write nothing here, so that what is not compiled now is compiled anew at every start.
RUN python -m compileall -q serving stages && useradd --uid 1000 --create-home foldstack

ARG BUNDLE=models/bundle
COPY ${BUNDLE} models/bundle

USER 1000
ENV FOLDSTACK_HOST=0.0.0.0 FOLDSTACK_PORT=8000 GRADIO_ANALYTICS_ENABLED=False
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD python -c "\
import http.client, os; \
c = http.client.HTTPConnection('127.0.0.1', int(os.environ['FOLDSTACK_PORT']), timeout=4); \
c.request('GET', '/readyz'); \
raise SystemExit(c.getresponse().status != 200)"
CMD ["python", "-m", "serving.server"]
