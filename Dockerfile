# The service as it runs in production: the page built, production dependencies only, not as root, nothing to be written.
# `npm run image:rehearse` does what this file says without a container engine.

# The version of the devDependency `node` in package.json. `npm ci --omit=dev` leaves that one out, so the base image's
# Node runs the service, and it has to be one that runs TypeScript without a build step. Pin a digest where you build.
ARG NODE_VERSION=26.10.0

FROM node:${NODE_VERSION}-slim AS page
WORKDIR /app
COPY .npmrc package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json vite.config.ts ./
COPY tools/build-web.ts tools/
COPY gen gen
COPY web web
RUN npm run build

FROM node:${NODE_VERSION}-slim AS dependencies
WORKDIR /app
COPY .npmrc package.json package-lock.json ./
RUN npm ci --omit=dev

FROM node:${NODE_VERSION}-slim
# The heap's share of the container's memory; the rest is for sockets, their buffers and the code.
ENV NODE_ENV=production NODE_OPTIONS=--max-old-space-size-percentage=60 HOST=0.0.0.0 LOG_FORMAT=json
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY gen gen
COPY web/view web/view
COPY tools/probe-health.ts tools/redrive.ts tools/
COPY server server
COPY --from=page /app/dist/web dist/web
# A number, so that Kubernetes can see that it is not root; `node` is its name in the base image.
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the process lives; whether it should get traffic is /readyz, and no reason to restart it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["node", "tools/probe-health.ts"]
# Not by npm, which would keep the signals to itself.
CMD ["node", "--disable-warning=TimeoutNegativeWarning", "server/main.ts"]
