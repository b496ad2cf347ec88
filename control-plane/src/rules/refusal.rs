//! Why a request is refused: a closed list of reasons, each with its code for programs, its status, and its
//! text for people in both languages. The only place where such texts stand.

use serde_json::Value;

/// The language of the texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// The default.
    #[default]
    English,
    /// Simplified.
    Chinese,
}

impl Language {
    /// The caller's, from an `Accept-Language` value: Chinese if it is the most wanted of the two.
    pub fn from_header(value: &str) -> Self {
        let wish = |language: &str| {
            let weight = |entry: &str| -> Option<u32> {
                let (tag, rest) = entry.split_once(';').unwrap_or((entry, ""));
                let tag = tag.trim().to_ascii_lowercase();
                let fits = tag == language || tag.starts_with(&format!("{language}-"));
                let quality = rest.trim().strip_prefix("q=").unwrap_or("1").trim();
                fits.then(|| thousandths(quality))
            };
            value.split(',').filter_map(weight).max().unwrap_or(0)
        };
        match wish("zh") > wish("en") {
            true => Self::Chinese,
            false => Self::English,
        }
    }
}

/// `0.8` → 800.
fn thousandths(quality: &str) -> u32 {
    let (whole, part) = quality.split_once('.').unwrap_or((quality, ""));
    let padded: String = part.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u32>().unwrap_or(0) * 1000 + padded.parse::<u32>().unwrap_or(0)
}

macro_rules! codes {
    ($($(#[$doc:meta])* $case:ident = $word:literal, $status:literal, $english:literal, $chinese:literal;)+) => {
        /// A reason. Several may share the word that programs see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $case,)+ }

        impl Code {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$case,)+];

            /// The `errorCode` of the answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word,)+ }
            }

            /// The status of the answer, as a number: this floor knows no HTTP types.
            pub const fn status(self) -> u16 {
                match self { $(Self::$case => $status,)+ }
            }

            const fn template(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$case, Language::English) => $english, (Self::$case, Language::Chinese) => $chinese,)+
                }
            }
        }
    };
}

codes! {
    /// A field without which nothing can be done is absent, null or empty.
    Required = "REQUIRED_FIELD", 400, "{field} is required", "{field} 为必填项";
    /// A name that nothing is asked by.
    UnknownField = "UNKNOWN_FIELD", 400, "{field} is not a field of this request", "{field} 不是此请求的字段";
    /// Wrong type.
    NotInteger = "INVALID_TYPE", 400, "{field} must be a whole number", "{field} 必须是整数";
    /// Wrong type.
    NotNumber = "INVALID_TYPE", 400, "{field} must be a number", "{field} 必须是数字";
    /// A number beyond what decimals of 96 bits hold.
    NotExact = "INVALID_RANGE", 400, "{field} is too large, too small or has too many digits", "{field} 数值过大、过小或位数过多";
    /// Wrong type.
    NotBoolean = "INVALID_TYPE", 400, "{field} must be true or false", "{field} 必须是布尔值";
    /// Wrong type.
    NotText = "INVALID_TYPE", 400, "{field} must be a text", "{field} 必须是字符串";
    /// Wrong type.
    NotList = "INVALID_TYPE", 400, "{field} must be a list of texts", "{field} 必须是字符串数组";
    /// Wrong type.
    NotObject = "INVALID_TYPE", 400, "{field} must be an object", "{field} 必须是对象";
    /// The body is JSON but no object.
    BodyNotObject = "INVALID_TYPE", 400, "the body must be a JSON object", "请求体必须是 JSON 对象";
    /// The body is no JSON.
    MalformedJson = "INVALID_JSON", 400, "the body is not valid JSON (line {line}, column {column})", "请求体不是有效的 JSON（第 {line} 行，第 {column} 列）";
    /// The body's encoding is wrong or it ended early.
    BodyUnreadable = "INVALID_FORMAT", 400, "the body could not be read: it must be JSON in UTF-8, sent whole and without a Content-Encoding", "无法读取请求体：必须是未压缩且完整的 UTF-8 JSON";
    /// The body is larger than the configured bound.
    BodyTooLarge = "PAYLOAD_TOO_LARGE", 413, "the body is larger than {max} bytes", "请求体超过 {max} 字节";
    /// Two names of one field, two values.
    Contradiction = "INVALID_FORMAT", 400, "{field} and {other} name the same thing but differ", "{field} 与 {other} 含义相同但取值不同";
    /// Too short.
    MinLength = "MIN_LENGTH", 400, "{field} must have at least {min} character(s)", "{field} 至少需要 {min} 个字符";
    /// Too long.
    MaxLength = "MAX_LENGTH", 400, "{field} must have at most {max} characters", "{field} 不能超过 {max} 个字符";
    /// Too many.
    MaxItems = "MAX_LENGTH", 400, "{field} must have at most {max} entries", "{field} 不能超过 {max} 项";
    /// Outside its bounds.
    Range = "INVALID_RANGE", 400, "{field} must be between {min} and {max}", "{field} 必须在 {min} 到 {max} 之间";
    /// Outside its bounds, zero aside.
    RangeOrZero = "INVALID_RANGE", 400, "{field} must be 0 or between {min} and {max}", "{field} 必须为 0 或在 {min} 到 {max} 之间";
    /// A money limit that no counter can hold.
    LimitTooSmall = "INVALID_RANGE", 400, "{field} must be 0 or at least {min}", "{field} 必须为 0 或至少 {min}";
    /// None of the words.
    OneOf = "INVALID_FORMAT", 400, "{field} must be one of: {words}", "{field} 必须是以下之一：{words}";
    /// A character that no text may hold.
    ControlCharacter = "INVALID_FORMAT", 400, "{field} must not hold the character U+0000", "{field} 不能包含字符 U+0000";
    /// No time of day.
    Clock = "INVALID_FORMAT", 400, "{field} must be a time of day as HH:mm", "{field} 必须是 HH:mm 格式的时间";
    /// No date or time.
    Time = "INVALID_FORMAT", 400, "{field} must be a date or a time in ISO 8601", "{field} 必须是有效的日期或 ISO 8601 时间";
    /// No URL we could call.
    Url = "INVALID_FORMAT", 400, "{field} must be a valid URL beginning with {schemes}", "{field} 必须是以 {schemes} 开头的有效 URL";
    /// A URL with a name or password in it.
    UrlCredentials = "INVALID_FORMAT", 400, "{field} must not hold a user name or password", "{field} 不能包含用户名或密码";
    /// A URL with a query or fragment.
    UrlQuery = "INVALID_FORMAT", 400, "{field} must not have a query or a fragment", "{field} 不能包含查询参数或片段";
    /// A masked credential where a real one is needed.
    MaskedCredential = "INVALID_FORMAT", 400, "{field} is a mask and not a credential", "{field} 是脱敏后的值，不是有效的密钥";
    /// A credential that no header can carry.
    CredentialCharacter = "INVALID_FORMAT", 400, "{field} must not hold line ends or control characters", "{field} 不能包含换行或控制字符";
    /// A place in a list that this program did not name.
    Cursor = "INVALID_FORMAT", 400, "{field} must be the nextCursor of an earlier answer", "{field} 必须是之前响应返回的 nextCursor";
    /// A rule that cannot be understood.
    ModelRule = "INVALID_FORMAT", 400, "{field}: {why}", "{field}：{why}";
    /// A header that may not be set.
    Header = "INVALID_FORMAT", 400, "{field}: the header {header} cannot be set, or not to this value", "{field}：不允许设置请求头 {header} 或其值无效";
    /// Active time: one without the other, or both equal.
    ActiveTime = "INVALID_FORMAT", 400, "activeTimeStart and activeTimeEnd must both be given and differ", "activeTimeStart 与 activeTimeEnd 必须同时设置且不能相同";
    /// A value that must be below another.
    MustBeBelow = "INVALID_RANGE", 400, "{field} must be less than {other}", "{field} 必须小于 {other}";

    /// No credential.
    Unauthorized = "UNAUTHORIZED", 401, "not logged in", "未认证";
    /// A credential that is unknown, expired or revoked.
    InvalidCredential = "TOKEN_INVALID", 401, "the login is invalid or has expired", "认证无效或已过期";
    /// Known, but may not.
    PermissionDenied = "PERMISSION_DENIED", 403, "no permission", "权限不足";
    /// A login by a key that may not use the web.
    ReadOnly = "PERMISSION_DENIED", 403, "this key may only read its own usage", "该密钥仅可查看自己的用量";
    /// A cookie used from another site.
    CsrfRejected = "CSRF_REJECTED", 403, "logins, and requests with a cookie, are accepted from this site only", "跨站请求被拒绝";
    /// Login without a credential.
    KeyRequired = "KEY_REQUIRED", 400, "token is required", "请提供登录密钥（token）";
    /// Login with an unknown credential.
    KeyInvalid = "KEY_INVALID", 401, "the key is invalid or has expired", "密钥无效或已过期";
    /// Too many failed logins from one address.
    LoginLocked = "RATE_LIMITED", 429, "too many failed logins; try again in {seconds} seconds", "登录失败次数过多，请在 {seconds} 秒后重试";

    /// Too many requests at once.
    TooMany = "RATE_LIMITED", 429, "too many requests at once; try again", "并发请求过多，请稍后重试";

    /// No such action.
    UnknownPath = "NOT_FOUND", 404, "there is no {path}", "接口不存在：{path}";
    /// The path exists with another method.
    Method = "METHOD_NOT_ALLOWED", 405, "{path} takes {allow}", "{path} 仅支持 {allow}";
    /// No such user.
    NoUser = "NOT_FOUND", 400, "the user does not exist", "用户不存在";
    /// No such key.
    NoKey = "KEY_NOT_FOUND", 400, "the key does not exist", "密钥不存在";
    /// No such provider.
    NoProvider = "NOT_FOUND", 400, "the provider does not exist", "供应商不存在";
    /// The root owner cannot be removed, switched off or lowered.
    OwnerProtected = "PERMISSION_DENIED", 400, "the root account cannot be removed, disabled or lose its role", "不能删除、停用或降级根账户";

    /// The name is taken.
    DuplicateName = "DUPLICATE_NAME", 400, "the user already has a key named {name}", "名为“{name}”的密钥已存在";
    /// A new user's expiry lies in the past.
    ExpiryPast = "EXPIRES_AT_MUST_BE_FUTURE", 400, "expiresAt must lie in the future", "过期时间必须是将来的时间";
    /// An expiry is more than ten years away.
    ExpiryFar = "EXPIRES_AT_TOO_FAR", 400, "expiresAt must not be more than 10 years away", "过期时间不能超过 10 年";
    /// A key's limit above its user's.
    Limit5h = "KEY_LIMIT_5H_EXCEEDS_USER_LIMIT", 400, "limit5hUsd of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的 5 小时限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A key's limit above its user's.
    LimitDaily = "KEY_LIMIT_DAILY_EXCEEDS_USER_LIMIT", 400, "limitDailyUsd of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的每日限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A key's limit above its user's.
    LimitWeekly = "KEY_LIMIT_WEEKLY_EXCEEDS_USER_LIMIT", 400, "limitWeeklyUsd of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的每周限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A key's limit above its user's.
    LimitMonthly = "KEY_LIMIT_MONTHLY_EXCEEDS_USER_LIMIT", 400, "limitMonthlyUsd of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的每月限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A key's limit above its user's.
    LimitTotal = "KEY_LIMIT_TOTAL_EXCEEDS_USER_LIMIT", 400, "limitTotalUsd of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的总限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A key's limit above its user's.
    LimitConcurrent = "KEY_LIMIT_CONCURRENT_EXCEEDS_USER_LIMIT", 400, "limitConcurrentSessions of the key ({keyLimit}) exceeds its user's ({userLimit})", "密钥的并发限额（{keyLimit}）超过用户限额（{userLimit}）";
    /// A group outside the user's.
    NoGroupPermission = "NO_GROUP_PERMISSION", 400, "the user may not use the group {group}", "没有使用分组 {group} 的权限";
    /// The default group, when the user is not in it.
    NoDefaultGroupPermission = "NO_DEFAULT_GROUP_PERMISSION", 400, "the user may not use the default group", "没有使用默认分组的权限";
    /// The last enabled key.
    LastKeyDelete = "CANNOT_DELETE_LAST_KEY", 400, "the last enabled key of a user cannot be deleted", "不能删除用户的最后一个可用密钥";
    /// The last enabled key.
    LastKeyDisable = "CANNOT_DISABLE_LAST_KEY", 400, "the last enabled key of a user cannot be disabled", "不能停用用户的最后一个可用密钥";
    /// The last key that carries a group.
    LastGroupKey = "CANNOT_DELETE_LAST_GROUP_KEY", 400, "the last key of the group {group} cannot be deleted", "不能删除分组 {group} 的最后一个密钥";

    /// A price table that is no JSON.
    PriceJson = "INVALID_FORMAT", 400, "the price table is not valid JSON (line {line}, column {column})", "JSON格式不正确，请检查价格表内容（第 {line} 行，第 {column} 列）";
    /// A price table of another shape.
    PriceObject = "INVALID_FORMAT", 400, "the price table must be a JSON object", "价格表必须是一个JSON对象";

    /// No such conversation, or somebody else's.
    NoSession = "NOT_FOUND", 400, "the session does not exist", "Session 不存在";
    /// What was said is not kept.
    NoMessages = "NOT_STORED", 400, "messages are not stored", "Messages 未存储或已过期";
    /// No such word.
    NoWord = "NOT_FOUND", 400, "the sensitive word does not exist", "敏感词不存在";
    /// A word without text.
    WordEmpty = "REQUIRED_FIELD", 400, "word must not be empty", "敏感词不能为空";
    /// Not one of the three kinds.
    WordMatchType = "INVALID_FORMAT", 400, "matchType must be contains, exact or regex", "无效的匹配类型";
    /// An expression that does not compile.
    WordRegex = "INVALID_FORMAT", 400, "the regular expression is not valid", "无效的正则表达式";
    /// Too many words.
    WordsMax = "LIMIT_EXCEEDED", 400, "there may be at most {max} sensitive words", "敏感词最多 {max} 个";

    /// A switch without anything behind it.
    NotSupported = "NOT_SUPPORTED", 400, "{field} is not supported", "不支持 {field}";
    /// A URL that nothing can be sent to.
    OutboundUrl = "INVALID_FORMAT", 400, "the URL must begin with http:// or https://", "URL 必须以 http:// 或 https:// 开头";
    /// A name without an address.
    OutboundResolve = "DELIVERY_FAILED", 400, "the name {host} could not be resolved", "无法解析域名 {host}";
    /// An address that is not public.
    OutboundInternal = "URL_NOT_ALLOWED", 400, "{host} is not a public address; OUTBOUND_ALLOW can permit it", "{host} 不是公网地址，可通过 OUTBOUND_ALLOW 放行";
    /// No connection.
    OutboundUnreachable = "DELIVERY_FAILED", 400, "the host could not be reached", "无法连接目标主机";
    /// No answer in time.
    OutboundTimeout = "DELIVERY_FAILED", 400, "there was no answer within {ms} ms", "目标主机在 {ms} 毫秒内没有响应";
    /// An answer that is no success.
    OutboundStatus = "DELIVERY_FAILED", 400, "the answer was HTTP {status}", "目标主机返回 HTTP {status}";
    /// A service that says no.
    OutboundNotTaken = "DELIVERY_FAILED", 400, "the service refused the message: {why}", "对方服务拒绝了消息：{why}";
    /// An answer without end.
    OutboundTooLarge = "DELIVERY_FAILED", 400, "the answer is larger than {max} bytes", "响应超过 {max} 字节";

    /// Postgres cannot be reached or has no time.
    Unavailable = "SERVICE_UNAVAILABLE", 503, "the database cannot be reached; try again", "数据库暂时不可用，请稍后重试";
    /// Anything else; the log knows more.
    Internal = "INTERNAL_ERROR", 500, "internal error (request {requestId})", "服务器内部错误（请求 {requestId}）";
}

/// One refusal: the reason and what it is about.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.text(Language::English))]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// Values for the text and for the `errorParams` of the answer; never a secret.
    pub params: Vec<(&'static str, Value)>,
}

impl Refusal {
    /// Without parameters.
    pub fn new(code: Code) -> Self {
        Self { code, params: Vec::new() }
    }

    /// About one field.
    pub fn field(code: Code, field: &str) -> Self {
        Self::new(code).with("field", field)
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.params.push((name, value.into()));
        self
    }

    /// For people.
    pub fn text(&self, language: Language) -> String {
        let mut text = self.code.template(language).to_owned();
        for (name, value) in &self.params {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text = text.replace(&format!("{{{name}}}"), &shown);
        }
        text
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_follow_the_language() {
        let cases = [
            ("", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-US,zh;q=0.5", Language::English),
            ("de", Language::English),
            ("fr, zh-TW;q=0.3", Language::Chinese),
            ("*", Language::English),
            ("zh;q=0", Language::English),
        ];
        for (header, want) in cases {
            assert_eq!(Language::from_header(header), want, "{header}");
        }
        let refusal = Refusal::field(Code::Range, "rpm").with("min", 0).with("max", 1_000_000);
        assert_eq!(refusal.text(Language::English), "rpm must be between 0 and 1000000");
        assert_eq!(refusal.text(Language::Chinese), "rpm 必须在 0 到 1000000 之间");
    }

    #[test]
    fn both_languages_have_the_same_parameters() {
        let holes = |text: &str| {
            let mut found: Vec<String> =
                text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect();
            found.sort();
            found
        };
        for code in Code::ALL {
            let (english, chinese) = (code.template(Language::English), code.template(Language::Chinese));
            assert_eq!(holes(english), holes(chinese), "{code:?}");
        }
    }
}
