//! Requests: the body as a form, whatever its Content-Type says; bounded in size and time.

use super::{Failure, State};
use crate::rules::{Code, Form, Members, Refusal};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::time::timeout;

/// The body of a request.
#[derive(Debug)]
pub struct Ask<F> {
    /// Its fields.
    pub form: F,
    /// All that it held, under canonical names.
    pub members: Members,
}

impl<F> Ask<F> {
    /// The names of what was sent, for the audit log: never values.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.members.names().map(|name| name.chars().take(64).collect()).collect();
        names.sort_unstable();
        names.truncate(100);
        names
    }
}

impl<F: Form> Ask<F> {
    fn new(members: Members) -> Result<Self, Refusal> {
        let form = F::read(&members)?;
        let mut known = Vec::new();
        F::names(&mut known);
        members.refuse_others(&known)?;
        Ok(Self { form, members })
    }
}

/// The body of a change of something that is shown with several names for one field.
#[derive(Debug)]
pub struct Edit<F> {
    members: Members,
    form: PhantomData<F>,
}

impl<F: Form> Edit<F> {
    /// The body, understood. Only where two names of one field differ is it asked what they were: `shown`, by the id
    /// under the first of `names` that is there.
    pub async fn of<S: Serialize>(
        self,
        names: &[&'static str],
        shown: impl AsyncFnOnce(i64) -> Result<Option<S>, Failure>,
    ) -> Result<Ask<F>, Failure> {
        match F::read(&self.members) {
            Err(refusal) if refusal.code == Code::Contradiction => {
                let id = self.members.take(names)?.id()?;
                let shown =
                    shown(id).await?.map(serde_json::to_value).transpose().map_err(Failure::internal)?;
                Ok(Ask::new(self.members.over(shown.unwrap_or_default()))?)
            }
            _ => Ok(Ask::new(self.members)?),
        }
    }
}

impl<F: Form + 'static> FromRequest for Edit<F> {
    type Error = Failure;
    type Future = LocalBoxFuture<'static, Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let members = members(request, payload);
        Box::pin(async move { Ok(Self { members: members.await?, form: PhantomData }) })
    }
}

impl<F: Form> FromRequest for Ask<F> {
    type Error = Failure;
    type Future = LocalBoxFuture<'static, Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let members = members(request, payload);
        Box::pin(async move { Ok(Self::new(members.await?)?) })
    }
}

fn members(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Members, Failure>> + 'static {
    let limits = request
        .app_data::<web::Data<State>>()
        .map(|state| (state.settings.max_body, state.settings.body_timeout));
    let payload = web::Payload::from_request(request, payload);
    async move {
        let (max, patience) = limits.ok_or_else(|| Failure::internal("no state"))?;
        let payload = payload.await.map_err(|_| Failure::from(Code::BodyUnreadable))?;
        Ok(Members::parse(&read(payload, max, patience).await?)?)
    }
}

async fn read(payload: web::Payload, max: usize, patience: Duration) -> Result<web::Bytes, Failure> {
    let too_large = || Refusal::new(Code::BodyTooLarge).with("max", max);
    match timeout(patience, payload.to_bytes_limited(max)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Err(_)) => Err(too_large().into()),
        Ok(Ok(Err(_))) | Err(_) => Err(Code::BodyUnreadable.into()),
    }
}

crate::rules::form::form! {
    /// Nothing is asked for.
    pub struct Nothing {}
}
