# The image for production: the built page, production dependencies only, a user other than root, a read-only file system.
# `npm run compose:walkthrough` builds and runs it.
#
#   docker build --build-arg COMMIT=$(git rev-parse --short=12 HEAD) -t inventory:0.2.0 .
#   docker run --rm inventory:0.2.0 node tools/token.js NAME ROLE     a token for a client; ROLE is orders, supply or ops

# The version of the devDependency `node` in package.json, which `npm ci --omit=dev` leaves out: the base image's Node runs
# the service. It must be a version that runs TypeScript without a build step. Pin a digest where you build.
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
# The heap gets this share of the container's memory; sockets, their buffers and the code need the rest.
ENV NODE_ENV=production NODE_OPTIONS=--max-old-space-size-percentage=60 HOST=0.0.0.0 LOG_FORMAT=json
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY gen gen
COPY web/view web/view
COPY tools/adopt.ts tools/copy-ledger.ts tools/message.ts tools/probe-health.ts tools/redrive.ts tools/token.js tools/
COPY cli cli
COPY server server
COPY --from=page /app/dist/web dist/web
# The commit of this build, for --version, /readyz and inventory_build_info.
ARG COMMIT=unknown
ENV INVENTORY_COMMIT=${COMMIT}
# A number, so that Kubernetes can see that it is not root; `node` is its name in the base image.
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
# Liveness only. An unready server (/readyz) must not be restarted.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --start-interval=1s --retries=3 CMD ["node", "tools/probe-health.ts"]
# Not by npm, which does not forward signals.
CMD ["node", "server/main.ts"]
