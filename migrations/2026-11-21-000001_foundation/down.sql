DROP TABLE proxies, sessions, usage_hourly, usage_records, audit_log, login_sessions, sensitive_words, prices,
    settings, provider_health, providers, keys, users, generation;
