//! The tables of `migrations/`, written by hand in the column order of the SQL.
//!
//! Depends on diesel only. The test in `db/testing.rs` reads every table once, so that a drift from the
//! migrations is seen.
#![allow(
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "the migrations carry the documentation"
)]

diesel::table! {
    generation (id) {
        id -> Bool,
        value -> Int8,
        counter_naming -> Int2,
    }
}

diesel::table! {
    users (id) {
        id -> Int8,
        owner_id -> Int8,
        parent_id -> Nullable<Int8>,
        dna -> Text,
        role -> Text,
        name -> Text,
        note -> Text,
        enabled -> Bool,
        expires_at -> Nullable<Timestamptz>,
        groups -> Array<Text>,
        tags -> Array<Text>,
        level -> Int4,
        rpm -> Nullable<Int4>,
        limit_5h_usd -> Nullable<Numeric>,
        limit_5h_reset_mode -> Text,
        limit_daily_usd -> Nullable<Numeric>,
        daily_reset_mode -> Text,
        daily_reset_time -> Text,
        limit_weekly_usd -> Nullable<Numeric>,
        limit_monthly_usd -> Nullable<Numeric>,
        limit_total_usd -> Nullable<Numeric>,
        limit_concurrent_sessions -> Nullable<Int4>,
        cost_reset_at -> Nullable<Timestamptz>,
        allowed_clients -> Array<Text>,
        blocked_clients -> Array<Text>,
        allowed_models -> Array<Text>,
        generation -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    keys (id) {
        id -> Int8,
        owner_id -> Int8,
        user_id -> Int8,
        name -> Text,
        hash -> Bytea,
        first_chars -> Text,
        last_chars -> Text,
        sealed -> Nullable<Bytea>,
        enabled -> Bool,
        expires_at -> Nullable<Timestamptz>,
        can_login_web_ui -> Bool,
        groups -> Array<Text>,
        limit_5h_usd -> Nullable<Numeric>,
        limit_5h_reset_mode -> Text,
        limit_daily_usd -> Nullable<Numeric>,
        daily_reset_mode -> Text,
        daily_reset_time -> Text,
        limit_weekly_usd -> Nullable<Numeric>,
        limit_monthly_usd -> Nullable<Numeric>,
        limit_total_usd -> Nullable<Numeric>,
        limit_concurrent_sessions -> Int4,
        cost_reset_at -> Nullable<Timestamptz>,
        cache_ttl_preference -> Text,
        generation -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    providers (id) {
        id -> Int8,
        owner_id -> Int8,
        name -> Text,
        base_url -> Text,
        kind -> Text,
        credential -> Bytea,
        credential_mask -> Text,
        enabled -> Bool,
        disabled_reason -> Nullable<Text>,
        weight -> Int4,
        priority -> Int4,
        group_priorities -> Nullable<Jsonb>,
        groups -> Array<Text>,
        level -> Int4,
        cost_multiplier -> Numeric,
        model_redirects -> Nullable<Jsonb>,
        allowed_models -> Nullable<Jsonb>,
        allowed_clients -> Array<Text>,
        blocked_clients -> Array<Text>,
        limit_5h_usd -> Nullable<Numeric>,
        limit_5h_reset_mode -> Text,
        limit_daily_usd -> Nullable<Numeric>,
        daily_reset_mode -> Text,
        daily_reset_time -> Text,
        limit_weekly_usd -> Nullable<Numeric>,
        limit_monthly_usd -> Nullable<Numeric>,
        limit_total_usd -> Nullable<Numeric>,
        limit_concurrent_sessions -> Int4,
        total_cost_reset_at -> Nullable<Timestamptz>,
        max_retry_attempts -> Nullable<Int4>,
        breaker_failure_threshold -> Int4,
        breaker_open_ms -> Int8,
        breaker_half_open_successes -> Int4,
        first_byte_timeout_ms -> Int4,
        idle_timeout_ms -> Int4,
        total_timeout_ms -> Int4,
        active_time_start -> Nullable<Text>,
        active_time_end -> Nullable<Text>,
        preserve_client_ip -> Bool,
        disable_session_reuse -> Bool,
        custom_headers -> Nullable<Jsonb>,
        extra -> Jsonb,
        generation -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    provider_health (provider_id) {
        provider_id -> Int8,
        owner_id -> Int8,
        state -> Text,
        until -> Nullable<Timestamptz>,
        reason -> Text,
        failures -> Int4,
        last_failure_at -> Nullable<Timestamptz>,
        epoch -> Int8,
        generation -> Int8,
    }
}

diesel::table! {
    settings (owner_id, key) {
        owner_id -> Int8,
        key -> Text,
        value -> Jsonb,
        generation -> Int8,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    prices (id) {
        id -> Int8,
        owner_id -> Int8,
        model_name -> Text,
        data -> Jsonb,
        source -> Text,
        generation -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sensitive_words (id) {
        id -> Int8,
        owner_id -> Int8,
        word -> Text,
        match_type -> Text,
        description -> Nullable<Text>,
        enabled -> Bool,
        generation -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    login_sessions (id) {
        id -> Int8,
        token_hash -> Bytea,
        owner_id -> Int8,
        user_id -> Int8,
        key_id -> Nullable<Int8>,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        client_ip -> Nullable<Text>,
        user_agent -> Nullable<Text>,
    }
}

diesel::table! {
    audit_log (id) {
        id -> Int8,
        owner_id -> Int8,
        operator_id -> Nullable<Int8>,
        action -> Text,
        target_kind -> Text,
        target_id -> Nullable<Int8>,
        details -> Jsonb,
        client_ip -> Nullable<Text>,
        generation -> Nullable<Int8>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    usage_records (id, created_at) {
        id -> Uuid,
        created_at -> Timestamptz,
        owner_id -> Int8,
        user_id -> Int8,
        key_id -> Int8,
        provider_id -> Nullable<Int8>,
        proxy_id -> Text,
        session_id -> Nullable<Text>,
        dialect -> Text,
        endpoint -> Text,
        model -> Text,
        upstream_model -> Nullable<Text>,
        response_model -> Nullable<Text>,
        billed_model -> Nullable<Text>,
        streamed -> Bool,
        outcome -> Text,
        status -> Int2,
        error -> Nullable<Text>,
        blocked_by -> Nullable<Text>,
        blocked_reason -> Nullable<Text>,
        input_tokens -> Int8,
        output_tokens -> Int8,
        reasoning_tokens -> Int8,
        cache_read_tokens -> Int8,
        cache_write_5m_tokens -> Int8,
        cache_write_1h_tokens -> Int8,
        other_tokens -> Nullable<Jsonb>,
        usage_source -> Text,
        cost -> Nullable<Numeric>,
        cost_parts -> Jsonb,
        cost_multiplier -> Numeric,
        generation -> Int8,
        duration_ms -> Int4,
        ttft_ms -> Nullable<Int4>,
        attempts -> Jsonb,
        retry_count -> Int2,
        user_agent -> Nullable<Text>,
        client_ip -> Nullable<Text>,
        trace_id -> Nullable<Text>,
        request_bytes -> Int8,
        response_bytes -> Int8,
        messages_count -> Int4,
        received_at -> Timestamptz,
        unpriced -> Nullable<Text>,
        held_cost -> Nullable<Numeric>,
    }
}

diesel::table! {
    usage_held (user_id, hour, key_id, provider_id, owner_id) {
        hour -> Timestamptz,
        owner_id -> Int8,
        user_id -> Int8,
        key_id -> Int8,
        provider_id -> Int8,
        held_cost -> Numeric,
    }
}

diesel::table! {
    usage_hourly (hour, owner_id, user_id, key_id, provider_id, model) {
        hour -> Timestamptz,
        owner_id -> Int8,
        user_id -> Int8,
        key_id -> Int8,
        provider_id -> Int8,
        model -> Text,
        requests -> Int8,
        errors -> Int8,
        blocked -> Int8,
        unpriced -> Int8,
        input_tokens -> Int8,
        output_tokens -> Int8,
        cache_read_tokens -> Int8,
        cache_write_5m_tokens -> Int8,
        cache_write_1h_tokens -> Int8,
        cost -> Numeric,
        duration_ms -> Int8,
    }
}

diesel::table! {
    sessions (user_id, session_id) {
        owner_id -> Int8,
        user_id -> Int8,
        session_id -> Text,
        key_id -> Int8,
        provider_id -> Nullable<Int8>,
        model -> Text,
        dialect -> Text,
        first_seen_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        requests -> Int8,
        input_tokens -> Int8,
        output_tokens -> Int8,
        cache_read_tokens -> Int8,
        cache_write_tokens -> Int8,
        cost -> Numeric,
        duration_ms -> Int8,
        last_status -> Int2,
    }
}

diesel::table! {
    proxies (proxy_id) {
        proxy_id -> Text,
        boot_id -> Text,
        version -> Text,
        address -> Text,
        generation -> Int8,
        rejected -> Jsonb,
        connected -> Bool,
        connected_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        counter_naming -> Int2,
        reported_ms -> Nullable<Int8>,
    }
}

diesel::table! {
    usage_dead_letters (digest) {
        digest -> Bytea,
        record_id -> Bytea,
        reason -> Text,
        record -> Bytea,
        received_at -> Timestamptz,
    }
}

diesel::joinable!(keys -> users (user_id));
diesel::table! {
    notifications (id) {
        id -> Int8,
        owner_id -> Int8,
        topic -> Text,
        cause -> Text,
        payload -> Jsonb,
        created_at -> Timestamptz,
        attempts -> Int4,
        due_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        outcome -> Nullable<Text>,
        last_error -> Nullable<Text>,
    }
}

diesel::table! {
    notification_checks (owner_id, topic) {
        owner_id -> Int8,
        topic -> Text,
        checked_at -> Timestamptz,
    }
}

diesel::table! {
    live (proxy_id) {
        proxy_id -> Text,
        seen_at -> Timestamptz,
        payload -> Bytea,
    }
}

diesel::table! {
    session_messages (user_id, session_id) {
        owner_id -> Int8,
        user_id -> Int8,
        session_id -> Text,
        seen_at -> Timestamptz,
        sealed -> Bytea,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    generation,
    users,
    keys,
    providers,
    provider_health,
    settings,
    prices,
    sensitive_words,
    live,
    session_messages,
    notifications,
    notification_checks,
    login_sessions,
    audit_log,
    usage_records,
    usage_held,
    usage_hourly,
    sessions,
    proxies
);
