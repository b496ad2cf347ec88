DROP TABLE usage_held;
ALTER TABLE usage_records DROP COLUMN held_cost;
ALTER TABLE usage_records DROP COLUMN unpriced;
