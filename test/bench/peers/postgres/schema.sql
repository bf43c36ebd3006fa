-- The same facts as the service's records: a ledger and a history for each product, and a reservation for each order.
CREATE TABLE ledgers (
  product_id text PRIMARY KEY,
  on_hand integer NOT NULL,
  reserved integer NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  sold bigint NOT NULL DEFAULT 0,
  version bigint NOT NULL DEFAULT 1,
  CHECK (on_hand >= reserved)
) WITH (fillfactor = 50);

CREATE TABLE history (
  product_id text NOT NULL,
  version bigint NOT NULL,
  cause text NOT NULL,
  reference text NOT NULL,
  on_hand integer NOT NULL,
  reserved integer NOT NULL,
  changed_at timestamptz NOT NULL,
  PRIMARY KEY (product_id, version)
);

CREATE TABLE reservations (
  reservation_id text PRIMARY KEY,
  product_id text NOT NULL,
  quantity integer NOT NULL,
  state text NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  ended_at timestamptz
) WITH (fillfactor = 80);
