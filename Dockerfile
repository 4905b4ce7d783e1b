# syntax=docker/dockerfile:1
FROM oven/bun:1.4.5-debian AS build
# What an SBOM lists is here; the program by itself shows nothing of it.
ARG BUILDKIT_SBOM_SCAN_STAGE=true
WORKDIR /app
# The dependencies are a layer of their own: it is made again only when they change.
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production
COPY tsconfig.json ./
COPY drizzle drizzle
COPY src src
RUN bun run build && mkdir -p /data

# The program alone: docker buildx build --target program --output type=local,dest=. .
FROM scratch AS program
COPY --from=build /app/dist/tasks-api /

# glibc, CA certificates and time zones; no shell. The program needs nothing else.
FROM gcr.io/distroless/base-debian12:nonroot
# package.json's, from the release workflow.
ARG VERSION=unreleased
LABEL org.opencontainers.image.title="Tasks API" \
      org.opencontainers.image.description="A per-user todo backend, signed in by Better Auth" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /app/dist/tasks-api /usr/local/bin/tasks-api
# For the embedded database, should one be asked for. The rest of the system may be read-only.
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /data
USER 65532:65532
# Nothing is made up here: without DATABASE_URL and BETTER_AUTH_SECRET it does not start.
ENV ENVIRONMENT=production
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/tasks-api", "health"]
ENTRYPOINT ["/usr/local/bin/tasks-api"]
CMD ["serve"]
