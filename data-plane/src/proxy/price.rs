//! What admission must know of the model's price: whether it is refused without one, and what the request is expected to
//! cost.

use super::Shared;
use super::opening::Opening;
use super::refuse::Refusal;
use crate::bill::{self, Names, Pricing, Service};
use crate::limit;
use contract::money::NanoUsd;
use contract::table::{ProviderKind, Unpriced};
use contract::usage::Dialect;
use rust_decimal::Decimal;

/// What a request is expected to cost, before the multiplier of the provider. What is not billed is not free of the
/// limits: it reserves no money, but is refused where money is out.
pub fn expected(opening: &Opening, max_output: Option<u64>) -> NanoUsd {
    if !opening.kind.is_metered() {
        return NanoUsd(0);
    }
    let names = Names { asked: &opening.model, ..Names::default() };
    let owner = opening.caller.user.owner_id;
    let service = Service { owner, names, kind: kind(opening), multiplier: Decimal::ONE, fast: opening.fast };
    bill::expected(&opening.table, &service, opening.input_bytes, max_output)
}

/// The same at the dearest of the providers that may serve the caller: which of them will is not known yet, and a limit
/// must not be passed because it is a dear one.
pub fn at_dearest(opening: &Opening, expected: NanoUsd) -> NanoUsd {
    if expected == NanoUsd(0) { expected } else { limit::scaled(expected, dearest_multiplier(opening)) }
}

fn dearest_multiplier(opening: &Opening) -> Decimal {
    let pool = opening.table.upstreams(opening.caller.user.owner_id, opening.dialect);
    let groups = opening.caller.groups();
    let usable = pool.iter().filter(|up| up.row.enabled && up.serves_group(groups));
    usable.map(|up| up.row.cost_multiplier).max().unwrap_or(Decimal::ONE)
}

/// Refuses a caller who has a money limit a model that could not be counted towards it, where the owner says so.
pub fn check(shared: &Shared, opening: &Opening) -> Result<(), Refusal> {
    let owner = opening.table.owner(opening.caller.user.owner_id);
    if owner.unpriced != Unpriced::Refuse || !opening.kind.is_metered() || is_priced(opening) {
        return Ok(());
    }
    shared.lacks_price(&opening.model);
    Err(Refusal::Unpriced(opening.model.clone()))
}

/// Whether the model, or one that a provider of the caller's makes of it, has a price.
fn is_priced(opening: &Opening) -> bool {
    let owner = opening.caller.user.owner_id;
    let priced = |sent: Option<&str>| {
        let names = Names { asked: &opening.model, sent, ..Names::default() };
        bill::pricing(&opening.table, owner, &names) != Pricing::None
    };
    let pool = || opening.table.upstreams(owner, opening.dialect).iter();
    priced(None) || pool().any(|up| priced(Some(up.redirect(&opening.model))))
}

/// The kind of provider that speaks the caller's protocol.
fn kind(opening: &Opening) -> ProviderKind {
    match opening.dialect {
        Dialect::Anthropic => ProviderKind::Claude,
        Dialect::OpenAi => ProviderKind::OpenAiCompatible,
        Dialect::Responses => ProviderKind::Codex,
        Dialect::Gemini => ProviderKind::Gemini,
    }
}
