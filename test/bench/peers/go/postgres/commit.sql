-- $1 reservation. No row: it is not active.
WITH reservation AS (
  UPDATE reservations SET state = 'committed', ended_at = now()
  WHERE reservation_id = $1::text AND state = 'active' AND expires_at > now()
  RETURNING product_id, quantity
), ledger AS (
  UPDATE ledgers SET
    on_hand = on_hand - quantity, reserved = reserved - quantity, sold = sold + quantity, version = version + 1
  FROM reservation WHERE ledgers.product_id = reservation.product_id
  RETURNING ledgers.product_id, version, on_hand, reserved
)
INSERT INTO history (product_id, version, cause, reference, on_hand, reserved, changed_at)
SELECT product_id, version, 'committed', $1::text, on_hand, reserved, now() FROM ledger
RETURNING version
