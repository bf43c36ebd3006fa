# The service as the image runs it: the page built, production dependencies only, not as root.
FROM node:26-slim AS page
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY gen gen
COPY server server
COPY tools tools
COPY web web
COPY vite.config.ts ./
RUN npm run build

FROM node:26-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM node:26-slim
ENV NODE_ENV=production HOST=0.0.0.0 LOG_FORMAT=json
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY gen gen
COPY server server
COPY tools/redrive.ts tools/redrive.ts
COPY web web
COPY --from=page /app/dist dist
USER node
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the process lives; whether it should get traffic is /readyz, and no reason to restart it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 8080}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--disable-warning=TimeoutNegativeWarning", "server/main.ts"]
