INSERT INTO usage_user_slots AS old
SELECT owner_id, spans.span, spans.start, user_id, count(*), coalesce(sum(cost), 0)
FROM usage_records CROSS JOIN LATERAL (VALUES
    (15::smallint, date_bin('15 minutes', created_at, 'epoch')),
    (1440::smallint, ($1::timestamptz[])[width_bucket(created_at, $1::timestamptz[])])) AS spans (span, start)
WHERE {which} AND blocked_by IS NULL
    AND endpoint NOT LIKE '%/count\_tokens' AND endpoint NOT LIKE '%/responses/compact'
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
ON CONFLICT (owner_id, span, start, user_id)
DO UPDATE SET requests = old.requests + excluded.requests, cost = old.cost + excluded.cost
