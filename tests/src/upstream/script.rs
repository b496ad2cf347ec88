//! Which answer comes next: one script per credential and one for everybody, each used up step by step.

use std::collections::VecDeque;

use serde_json::Value;

use super::answer::{Answer, BadStep, Kind};

/// Scripts of all credentials.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    scripts: Vec<Script>,
}

#[derive(Debug)]
struct Script {
    /// The whole credential or its last four characters; nothing means everybody.
    credential: Option<String>,
    steps: VecDeque<Answer>,
    repeat: bool,
}

impl Script {
    fn is_for(&self, credential: &str) -> bool {
        self.credential.as_deref().is_none_or(|wanted| {
            wanted == credential || (wanted.chars().count() <= 4 && credential.ends_with(wanted))
        })
    }

    fn take(&mut self) -> Option<Answer> {
        let step = self.steps.pop_front()?;
        if self.repeat {
            self.steps.push_back(step.clone());
        }
        Some(step)
    }
}

impl Scripts {
    /// Replaces the script of one credential or of everybody; no steps remove it.
    pub(super) fn set(&mut self, credential: Option<&str>, steps: Vec<Answer>, repeat: bool) {
        self.scripts.retain(|script| script.credential.as_deref() != credential);
        if !steps.is_empty() {
            let script = Script { credential: credential.map(str::to_owned), steps: steps.into(), repeat };
            // The credential's own script is looked at before everybody's.
            let place = if credential.is_some() { 0 } else { self.scripts.len() };
            self.scripts.insert(place, script);
        }
    }

    /// Reads the body of `POST /_script`.
    pub(super) fn set_from_json(&mut self, body: &Value) -> Result<usize, BadStep> {
        let fields = body.as_object().ok_or(BadStep::new("expected {credential, steps, repeat}"))?;
        if let Some(name) =
            fields.keys().find(|name| !["credential", "steps", "repeat"].contains(&name.as_str()))
        {
            return Err(BadStep::new(format!("{name}: not a member of a script")));
        }
        let credential = match fields.get("credential") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.as_str()),
            Some(_) => return Err(BadStep::new("credential: expected a text or null")),
        };
        let steps =
            fields.get("steps").and_then(Value::as_array).ok_or(BadStep::new("steps: expected a list"))?;
        let steps = steps.iter().map(Answer::from_json).collect::<Result<Vec<_>, _>>()?;
        let repeat = match fields.get("repeat") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or(BadStep::new("repeat: expected true or false"))?,
        };
        let taken = steps.len();
        self.set(credential, steps, repeat);
        Ok(taken)
    }

    /// Forgets every script.
    pub(super) fn clear(&mut self) {
        self.scripts.clear();
    }

    /// The credential's own script, else everybody's.
    fn current(&mut self, credential: &str) -> Option<&mut Script> {
        self.scripts.iter_mut().find(|script| script.is_for(credential) && !script.steps.is_empty())
    }

    /// The next step for this credential.
    pub(super) fn next(&mut self, credential: &str) -> Option<Answer> {
        self.current(credential)?.take()
    }

    /// Whether the next step for this credential is to refuse; if so it is used up.
    pub(super) fn take_refusal(&mut self, credential: &str) -> bool {
        let Some(script) = self.current(credential) else { return false };
        let refuses = script.steps.front().is_some_and(|step| step.kind == Kind::Refuse);
        refuses && script.take().is_some()
    }
}
