//! An owner's settings. A value that this build does not know yet is its default: no setting of an owner makes a table
//! unusable.

use super::Invalid;
use crate::ids::UserId;
use crate::pb;
use crate::table::{CounterNaming, OwnerConfig, Unpriced, WordScope};

impl TryFrom<pb::OwnerConfig> for OwnerConfig {
    type Error = Invalid;

    fn try_from(wire: pb::OwnerConfig) -> Result<Self, Invalid> {
        let time_zone =
            wire.time_zone.parse().map_err(|_| Invalid::new("time_zone", "not an IANA time zone"))?;
        let bill_redirected = match wire.billing_model.as_str() {
            "original" => false,
            "redirected" => true,
            _ => return Err(Invalid::new("billing_model", "must be original or redirected")),
        };
        let unpriced = match wire.unpriced() {
            pb::Unpriced::Refuse => Unpriced::Refuse,
            pb::Unpriced::Ceiling | pb::Unpriced::Unspecified => Unpriced::Ceiling,
            pb::Unpriced::Serve => Unpriced::Serve,
        };
        let word_scope = match wire.word_scope() {
            pb::WordScope::People | pb::WordScope::Unspecified => WordScope::People,
            pb::WordScope::All => WordScope::All,
        };
        let owner_id = UserId(wire.owner_id);
        let upstream_resources = wire.upstream_resources;
        let counter_naming = CounterNaming::from_number(wire.counter_naming);
        Ok(Self {
            owner_id,
            time_zone,
            bill_redirected,
            upstream_resources,
            unpriced,
            word_scope,
            counter_naming,
        })
    }
}

impl From<&OwnerConfig> for pb::OwnerConfig {
    fn from(row: &OwnerConfig) -> Self {
        let billing_model = if row.bill_redirected { "redirected" } else { "original" };
        let unpriced = match row.unpriced {
            Unpriced::Refuse => pb::Unpriced::Refuse,
            Unpriced::Ceiling => pb::Unpriced::Ceiling,
            Unpriced::Serve => pb::Unpriced::Serve,
        };
        let word_scope = match row.word_scope {
            WordScope::People => pb::WordScope::People,
            WordScope::All => pb::WordScope::All,
        };
        Self {
            owner_id: row.owner_id.0,
            time_zone: row.time_zone.name().to_owned(),
            billing_model: billing_model.to_owned(),
            upstream_resources: row.upstream_resources,
            unpriced: unpriced.into(),
            word_scope: word_scope.into(),
            counter_naming: row.counter_naming.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_wire_and_an_older_control_plane_means_the_defaults() {
        let plain = OwnerConfig::new(UserId(1), chrono_tz::Europe::Berlin);
        let older = pb::OwnerConfig {
            owner_id: 1,
            time_zone: "Europe/Berlin".to_owned(),
            billing_model: "original".to_owned(),
            ..pb::OwnerConfig::default()
        };
        assert_eq!(OwnerConfig::try_from(older.clone()), Ok(plain.clone()));
        let newer = pb::OwnerConfig { unpriced: 99, word_scope: 99, ..older };
        assert_eq!(OwnerConfig::try_from(newer), Ok(plain.clone()));
        for unpriced in Unpriced::ALL {
            for word_scope in WordScope::ALL {
                let counter_naming = CounterNaming::NEWEST;
                let upstream_resources = true;
                let row =
                    OwnerConfig { unpriced, word_scope, upstream_resources, counter_naming, ..plain.clone() };
                assert_eq!(OwnerConfig::try_from(pb::OwnerConfig::from(&row)), Ok(row));
            }
        }
    }
}
