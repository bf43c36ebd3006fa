-- $1 product, $2 quantity, $3 reservation, $4 time to live in seconds. No row: stock is short.
WITH ledger AS (
  UPDATE ledgers SET reserved = reserved + $2::integer, version = version + 1
  WHERE product_id = $1::text AND on_hand - reserved >= $2::integer
  RETURNING product_id, version, on_hand, reserved
), reservation AS (
  INSERT INTO reservations (reservation_id, product_id, quantity, state, created_at, expires_at)
  SELECT $3::text, product_id, $2::integer, 'active', now(), now() + $4::bigint * interval '1 second' FROM ledger
)
INSERT INTO history (product_id, version, cause, reference, on_hand, reserved, changed_at)
SELECT product_id, version, 'reserved', $3::text, on_hand, reserved, now() FROM ledger
RETURNING version
