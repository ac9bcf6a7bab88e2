FROM python:3.13-slim AS build
WORKDIR /srv/coseat
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/coseat
COPY requirements-production.txt ./
RUN /opt/coseat/bin/pip install --require-hashes --requirement requirements-production.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY app app
RUN /opt/coseat/bin/pip install --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin coseat
COPY --from=build /opt/coseat /opt/coseat
ENV PATH=/opt/coseat/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8000
USER coseat
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["coseat", "health"]
CMD ["coseat", "serve"]
