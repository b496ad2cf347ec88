//! Why an exchange with an upstream gave no answer, in closed words. Never carries a URL, header or secret.

use std::fmt;

/// Which wait ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Name, TCP and TLS.
    Connect,
    /// The head of the answer.
    Head,
    /// The first byte with content.
    FirstByte,
    /// The next chunk of the answer.
    Idle,
    /// The whole answer.
    Total,
}

/// Trouble of this proxy, whoever it wanted to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// No file descriptor, port or buffer is left.
    Descriptors,
    /// The machine has no route.
    Route,
    /// The resolver does not answer.
    Resolver,
    /// Several hosts at once cannot be reached.
    Network,
}

/// What kind of failure; its word is a metric label and stands in the decision trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The host name has no address.
    Dns,
    /// The resolver did not answer, or could not say.
    NoResolver,
    /// No address took the connection.
    Connect,
    /// The network says that there is no way to the host.
    Unreachable,
    /// Trouble of this proxy.
    Local(Local),
    /// No agreement on TLS, or a certificate that is not trusted.
    Tls,
    /// A wait ran out.
    Timeout(Stage),
    /// The connection broke.
    Reset,
    /// The answer ended before its end.
    Incomplete,
    /// The answer is not HTTP.
    Protocol,
    /// The request could not be formed from the provider's settings.
    Request,
}

impl FailureClass {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::NoResolver => "no_resolver",
            Self::Connect => "connect",
            Self::Unreachable => "unreachable",
            Self::Local(Local::Descriptors) => "local_descriptors",
            Self::Local(Local::Route) => "local_route",
            Self::Local(Local::Resolver) => "local_resolver",
            Self::Local(Local::Network) => "local_network",
            Self::Tls => "tls",
            Self::Timeout(Stage::Connect) => "timeout_connect",
            Self::Timeout(Stage::Head) => "timeout_head",
            Self::Timeout(Stage::FirstByte) => "timeout_first_byte",
            Self::Timeout(Stage::Idle) => "timeout_idle",
            Self::Timeout(Stage::Total) => "timeout_total",
            Self::Reset => "reset",
            Self::Incomplete => "incomplete",
            Self::Protocol => "protocol",
            Self::Request => "request",
        }
    }
}

/// Why there is no answer, or no end of one.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind.
    pub class: FailureClass,
    /// Whether the same request may succeed at the same provider a moment later.
    pub retry: bool,
    /// Whether it is that of a second send, after a resting connection turned out to be closed.
    pub sent_again: bool,
    detail: Option<Box<str>>,
}

impl Failure {
    /// A failure without further words.
    pub fn new(class: FailureClass) -> Self {
        Self { class, retry: class != FailureClass::Request, sent_again: false, detail: None }
    }

    /// A wait that ran out.
    pub fn timeout(stage: Stage) -> Self {
        Self::new(FailureClass::Timeout(stage))
    }

    /// With a cause; `detail` must hold nothing that came from a header or a URL's query.
    pub fn because(class: FailureClass, detail: impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string().into()), ..Self::new(class) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.class {
            FailureClass::Dns => "the host name has no address",
            FailureClass::NoResolver => "the host name could not be looked up",
            FailureClass::Connect => "could not connect",
            FailureClass::Unreachable => "there is no way to the host",
            FailureClass::Local(Local::Descriptors) => "this proxy has no file descriptor left",
            FailureClass::Local(Local::Route) => "this proxy has no route",
            FailureClass::Local(Local::Resolver) => "this proxy cannot look up names",
            FailureClass::Local(Local::Network) => "this proxy reaches no host",
            FailureClass::Tls => "TLS failed",
            FailureClass::Timeout(Stage::Connect) => "timeout while connecting",
            FailureClass::Timeout(Stage::Head) => "timeout before the head of the answer",
            FailureClass::Timeout(Stage::FirstByte) => "timeout before the first content",
            FailureClass::Timeout(Stage::Idle) => "the answer stalled",
            FailureClass::Timeout(Stage::Total) => "timeout before the end of the answer",
            FailureClass::Reset => "the connection broke",
            FailureClass::Incomplete => "the answer broke off",
            FailureClass::Protocol => "the answer is not HTTP",
            FailureClass::Request => "the request could not be formed",
        };
        f.write_str(text)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl std::error::Error for Failure {}

/// Whether this process, or the machine, has no descriptor, port or buffer left.
pub(super) fn is_short(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    is_errno(error, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL])
}

/// Whether it is one of these.
pub(super) fn is_errno(error: &std::io::Error, any: &[rustix::io::Errno]) -> bool {
    error.raw_os_error().is_some_and(|number| any.iter().any(|errno| errno.raw_os_error() == number))
}
