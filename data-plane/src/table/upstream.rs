//! A provider, ready for use: its row, its opened credential, its rules compiled.

use super::reluctance::Reluctance;
use crate::memo::Memo;
use contract::convert::Invalid;
use contract::table::{ALL_GROUPS, DEFAULT_GROUP, MatchType, ModelRule, Provider, ProviderKind};
use llm::EndpointKind;
use regex::{Regex, RegexBuilder};
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use url::{Position, Url};

/// Memory that one compiled expression may take. Enough for any list of model names; a bound against
/// expressions that explode.
pub(super) const REGEX_SIZE: usize = 1 << 20;

/// A credential in clear. Lives in memory only and prints as nothing.
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a credential in clear.
    pub fn new(clear: impl Into<Box<str>>) -> Self {
        Self(clear.into())
    }

    /// The credential, to be put into a request and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What connections to an upstream go through.
#[derive(Debug)]
pub struct Proxy {
    /// http, https, socks4 or socks5, with a host.
    pub url: Url,
    /// Whether connections are made directly where it makes none.
    pub fallback: bool,
}

impl Proxy {
    fn new(row: &Provider) -> Result<Option<Self>, Invalid> {
        let Some(options) = &row.options else { return Ok(None) };
        let Some(text) = &options.proxy_url else { return Ok(None) };
        let wrong = |why: &str| Invalid::new("options.proxy_url", why);
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        let known = matches!(url.scheme(), "http" | "https" | "socks4" | "socks5");
        if !known || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("must be an absolute http, https, socks4 or socks5 URL"));
        }
        // They would be left out of the exchange with the proxy, in silence.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not hold credentials"));
        }
        Ok(Some(Self { url, fallback: options.proxy_fallback_to_direct }))
    }
}

/// One upstream credential at one base URL.
#[derive(Debug)]
pub struct Upstream {
    /// As it came.
    pub row: Provider,
    /// The opened credential.
    pub secret: Secret,
    /// `row.base_url`, parsed: http or https, with a host.
    pub base: Url,
    /// What connections to it go through.
    pub proxy: Option<Proxy>,
    /// Which connections requests to it may share: those of the same scheme, host and port, through the same proxy.
    pub lane: Box<str>,
    redirects: Vec<(Matcher, Box<str>)>,
    allowed: Vec<Matcher>,
    problems: Vec<Invalid>,
    /// The part of every request to it that is the same.
    pub prepared: Memo,
    /// Whether it refuses to be asked for the usage of a stream. Forgotten when its row changes, too.
    pub refuses_usage: Reluctance,
    /// The first model that it served in a call of the kind that the gateway itself would make, as it was sent.
    pub served: OnceLock<Box<str>>,
}

impl Upstream {
    /// Checks and compiles a row. A rule that does not compile never matches, see [`Upstream::problems`].
    pub fn new(row: Provider, secret: Secret) -> Result<Self, Invalid> {
        let base = Url::parse(&row.base_url).map_err(|error| Invalid::new("base_url", error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(Invalid::new("base_url", "must be an absolute http or https URL"));
        }
        let proxy = Proxy::new(&row)?;
        let mut lane = proxy.as_ref().map_or_else(String::new, |proxy| format!("{} ", origin(&proxy.url)));
        lane.push_str(origin(&base));
        let mut problems = Vec::new();
        let mut compile = |rule: &ModelRule, path: String| {
            Matcher::new(rule).unwrap_or_else(|why| {
                problems.push(Invalid::new(path, why));
                Matcher::Never
            })
        };
        let mut redirects = Vec::with_capacity(row.redirects.len());
        for (at, rule) in row.redirects.iter().enumerate() {
            let matcher = compile(rule, format!("redirects[{at}].pattern"));
            redirects.extend(rule.target.as_deref().map(|target| (matcher, target.into())));
        }
        let allowed = row.allowed_models.iter().enumerate();
        let allowed =
            allowed.map(|(at, rule)| compile(rule, format!("allowed_models[{at}].pattern"))).collect();
        let lane = lane.into();
        Ok(Self {
            row,
            secret,
            base,
            proxy,
            lane,
            redirects,
            allowed,
            problems,
            prepared: Memo::default(),
            refuses_usage: Reluctance::default(),
            served: OnceLock::new(),
        })
    }

    /// The rules that do not compile.
    pub fn problems(&self) -> &[Invalid] {
        &self.problems
    }

    /// Remembers a model that it served, for the gateway's own requests: the first one, of calls like those.
    pub fn has_served(&self, call: EndpointKind, model: &str) {
        let alike = match self.row.kind {
            ProviderKind::Claude | ProviderKind::ClaudeAuth => call == EndpointKind::Messages,
            ProviderKind::Codex => call == EndpointKind::Responses,
            ProviderKind::OpenAiCompatible => call == EndpointKind::ChatCompletions,
            ProviderKind::Gemini | ProviderKind::GeminiCli => false,
        };
        if alike {
            // Whoever is first.
            let _ = self.served.set(model.into());
        }
    }

    /// The model to send upstream for the one that the caller asked for: the first rule that matches, once.
    pub fn redirect<'a>(&'a self, model: &'a str) -> &'a str {
        self.redirects.iter().find(|(rule, _)| rule.matches(model)).map_or(model, |(_, target)| target)
    }

    /// Whether the asked model (before any redirect) may be served here. No rules: any.
    pub fn allows_model(&self, model: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|rule| rule.matches(model))
    }

    /// Whether a caller of these groups may be served here; no groups means the default group on both sides.
    pub fn serves_group(&self, groups: &[Arc<str>]) -> bool {
        let has = |name: &str| {
            if self.row.groups.is_empty() {
                name == DEFAULT_GROUP
            } else {
                self.row.groups.iter().any(|own| &**own == name)
            }
        };
        match groups {
            [] => has(DEFAULT_GROUP),
            groups => groups.iter().any(|name| &**name == ALL_GROUPS || has(name)),
        }
    }

    /// Whether this program may be served here.
    pub fn serves_client(&self, agent: &str) -> bool {
        client_allowed(&self.row.allowed_clients, &self.row.blocked_clients, agent)
    }

    /// The priority for a caller of these groups: the smallest that one of them sets, else the provider's.
    pub fn priority_for(&self, groups: &[Arc<str>]) -> i32 {
        let own = |name: &str| self.row.group_priorities.get(name).copied();
        let best = match groups {
            _ if self.row.group_priorities.is_empty() => None,
            [] => own(DEFAULT_GROUP),
            groups => groups.iter().filter_map(|name| own(name)).min(),
        };
        best.unwrap_or(self.row.priority)
    }

    /// Whether it is in use at this minute of the day. The window's end is outside; it may pass midnight.
    pub fn active_at(&self, minute_of_day: u16) -> bool {
        match self.row.active {
            None => true,
            Some((from, to)) if from == to => true,
            Some((from, to)) if from < to => (from..to).contains(&minute_of_day),
            Some((from, to)) => minute_of_day >= from || minute_of_day < to,
        }
    }
}

/// Scheme, host and port.
pub fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

/// Whether a program may be served, by the lists of a user or of a provider: parts of its User-Agent, whatever their
/// case. No list of allowed ones allows all; a blocked one is never allowed.
pub fn client_allowed(allowed: &[String], blocked: &[String], agent: &str) -> bool {
    if allowed.is_empty() && blocked.is_empty() {
        return true;
    }
    let agent = agent.to_ascii_lowercase();
    let is = |pattern: &String| agent.contains(&pattern.to_ascii_lowercase());
    (allowed.is_empty() || allowed.iter().any(is)) && !blocked.iter().any(is)
}

/// A model rule, compiled. Case matters, as it does to upstreams.
#[derive(Debug)]
enum Matcher {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
    Never,
}

impl Matcher {
    fn new(rule: &ModelRule) -> Result<Self, String> {
        let text = || rule.pattern.as_str().into();
        Ok(match rule.match_type {
            MatchType::Exact => Self::Exact(text()),
            MatchType::Prefix => Self::Prefix(text()),
            MatchType::Suffix => Self::Suffix(text()),
            MatchType::Contains => Self::Contains(text()),
            MatchType::Regex => {
                let built = RegexBuilder::new(&rule.pattern).size_limit(REGEX_SIZE).build();
                Self::Regex(built.map_err(|error| short(&error))?)
            }
        })
    }

    fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(text) => model == &**text,
            Self::Prefix(text) => model.starts_with(&**text),
            Self::Suffix(text) => model.ends_with(&**text),
            Self::Contains(text) => model.contains(&**text),
            Self::Regex(regex) => regex.is_match(model),
            Self::Never => false,
        }
    }
}

/// The last line of a compile error: what is wrong, without the drawing of where.
pub(super) fn short(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
