use super::*;

fn with(changes: &[(&str, &str)]) -> Result<Config, Invalid> {
    let key = "0f".repeat(32);
    let base = [
        ("DATABASE_URL", "postgres://u:canary@localhost/db"),
        ("ADMIN_TOKEN", "canary-admin"),
        ("CONTROL_TOKEN", "canary-control"),
        ("SECRETS_KEY", key.as_str()),
    ];
    Config::read(|name| {
        let pick =
            |list: &[(&str, &str)]| list.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        pick(changes).or_else(|| pick(&base))
    })
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = with(&[]).expect("base");
    assert_eq!(config.listen.http.port(), 23000);
    assert_eq!(config.listen.grpc.port(), 23001);
    assert_eq!(config.listen.ops.port(), 23002);
    assert_eq!(config.time_zone, Tz::UTC);
    assert_eq!(config.database.direct_url, config.database.url);
    assert_eq!(config.access.key_reveal, KeyReveal::Never);
    assert!(config.auto_migrate);
}

#[test]
fn a_wrong_value_names_its_variable() {
    let cases = [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", "postgres://u:canary@host/db?sslrootcert=a"),
        ("DATABASE_URL", "postgres://u:canary@host:port/db"),
        ("DATABASE_CA_FILE", "/nowhere"),
        ("DATABASE_CA_FILE", "/dev/null"),
        ("ADMIN_TOKEN", " "),
        ("ADMIN_TOKEN", "change-me"),
        ("CONTROL_TOKEN", ""),
        ("SECRETS_KEY", "abc"),
        ("SECRETS_KEY", ""),
        ("LISTEN_ADDR", "here"),
        ("GRPC_ADDR", "1.2.3.4"),
        ("TIME_ZONE", "Mars/Olympus"),
        ("UNPRICED", "free"),
        ("KEY_REVEAL", "yes"),
        ("AUTO_MIGRATE", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_WAIT_MS", "0"),
        ("RETENTION_DAYS", "-1"),
    ];
    for (name, value) in cases {
        let error = with(&[(name, value)]).expect_err(name);
        assert_eq!(error.variable, name, "{value:?}");
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(name) && sentence.ends_with('.') && !sentence.contains('\n'),
            "{sentence}"
        );
    }
}

#[test]
fn a_certificate_goes_with_its_key() {
    type Case<'a> = (&'a [(&'a str, &'a str)], Result<bool, &'a str>);
    let cases: [Case<'_>; 5] = [
        (&[], Ok(false)),
        (&[("GRPC_CERT_FILE", "c"), ("GRPC_KEY_FILE", "k")], Ok(true)),
        (&[("GRPC_CERT_FILE", "c")], Err("GRPC_KEY_FILE")),
        (&[("GRPC_KEY_FILE", "k")], Err("GRPC_CERT_FILE")),
        (&[("GRPC_CLIENT_CA_FILE", "a")], Err("GRPC_CERT_FILE")),
    ];
    for (changes, want) in cases {
        let got = with(changes).map(|config| config.listen.grpc_tls.is_some());
        assert_eq!(got.map_err(|error| error.variable), want, "{changes:?}");
    }
}

#[test]
fn debug_output_has_no_secret() {
    let text = format!("{:?}", with(&[]).expect("base"));
    assert!(!text.contains("canary") && !text.contains("0f0f"), "{text}");
}
