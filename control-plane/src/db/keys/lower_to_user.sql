-- $1 owner, $2 user, $3 generation. No limit of a key above the one of its user; 0 and null are no limit. No group that
-- its user is not in, unless that leaves none: no groups would mean all of its user's, so such a key keeps them, and the
-- proxies serve it nothing until its user is in one of them again.
WITH lowered AS (
    SELECT
        k.id,
        CASE WHEN u.limit_5h_usd > 0 AND k.limit_5h_usd > u.limit_5h_usd
            THEN u.limit_5h_usd ELSE k.limit_5h_usd END AS usd_5h,
        CASE WHEN u.limit_daily_usd > 0 AND k.limit_daily_usd > u.limit_daily_usd
            THEN u.limit_daily_usd ELSE k.limit_daily_usd END AS usd_daily,
        CASE WHEN u.limit_weekly_usd > 0 AND k.limit_weekly_usd > u.limit_weekly_usd
            THEN u.limit_weekly_usd ELSE k.limit_weekly_usd END AS usd_weekly,
        CASE WHEN u.limit_monthly_usd > 0 AND k.limit_monthly_usd > u.limit_monthly_usd
            THEN u.limit_monthly_usd ELSE k.limit_monthly_usd END AS usd_monthly,
        CASE WHEN u.limit_total_usd > 0 AND k.limit_total_usd > u.limit_total_usd
            THEN u.limit_total_usd ELSE k.limit_total_usd END AS usd_total,
        CASE WHEN u.limit_concurrent_sessions > 0 AND k.limit_concurrent_sessions > u.limit_concurrent_sessions
            THEN u.limit_concurrent_sessions ELSE k.limit_concurrent_sessions END AS sessions,
        CASE WHEN '*' = ANY(u.groups || k.groups) OR NOT k.groups && own.groups THEN k.groups ELSE ARRAY(
            SELECT g FROM unnest(k.groups) WITH ORDINALITY AS of_key(g, place)
            WHERE g = ANY(own.groups) ORDER BY place
        ) END AS groups
    FROM keys AS k JOIN users AS u ON u.id = k.user_id
    CROSS JOIN LATERAL (SELECT CASE WHEN u.groups = '{}' THEN ARRAY['default'] ELSE u.groups END AS groups) AS own
    WHERE k.owner_id = $1 AND k.user_id = $2 AND k.deleted_at IS NULL
)
UPDATE keys AS k SET
    limit_5h_usd = l.usd_5h, limit_daily_usd = l.usd_daily, limit_weekly_usd = l.usd_weekly,
    limit_monthly_usd = l.usd_monthly, limit_total_usd = l.usd_total, limit_concurrent_sessions = l.sessions,
    groups = l.groups, generation = $3, updated_at = now()
FROM lowered AS l
WHERE l.id = k.id AND (
    k.limit_5h_usd, k.limit_daily_usd, k.limit_weekly_usd, k.limit_monthly_usd, k.limit_total_usd,
    k.limit_concurrent_sessions, k.groups
) IS DISTINCT FROM (l.usd_5h, l.usd_daily, l.usd_weekly, l.usd_monthly, l.usd_total, l.sessions, l.groups)
