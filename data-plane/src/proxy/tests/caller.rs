//! Makes a call in place of hyper: hands the request to the walk, reads the answer, leaves when it has had enough.

use super::call::{Answer, Call, Upload};
use crate::clock::Instant;
use crate::proxy::{Proxy, respond};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Makes a call and reads the answer, as hyper does, for as long as the caller wants.
pub async fn make(proxy: Rc<Proxy>, call: Call) -> Answer {
    let began = Instant::now();
    let seen: Rc<RefCell<Answer>> = Rc::default();
    let whole = read(proxy, &call, Rc::clone(&seen), began);
    let in_time = match call.patience {
        Some(patience) => tokio::time::timeout(patience, whole).await.is_ok(),
        None => {
            whole.await;
            true
        }
    };
    let mut answer = seen.take();
    answer.left |= !in_time;
    answer.took = began.elapsed();
    answer
}

async fn read(proxy: Rc<Proxy>, call: &Call, seen: Rc<RefCell<Answer>>, began: Instant) {
    let peer = SocketAddr::from((call.address, 40_000));
    let response = proxy.handle::<Upload>(call.request(), peer).await;
    let (head, mut body) = response.into_parts();
    {
        let mut seen = seen.borrow_mut();
        seen.status = head.status.as_u16();
        seen.headers = head.headers;
        seen.stranger = respond::is_stranger(&head.extensions);
    }
    // As hyper does: what is known to have ended is not asked again.
    while !body.is_end_stream() {
        if call.appetite.is_some_and(|most| seen.borrow().pieces.len() >= most) {
            seen.borrow_mut().left = true;
            return;
        }
        match body.frame().await {
            None => return,
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap();
                seen.borrow_mut().pieces.push((began.elapsed(), data));
            }
            Some(Err(_)) => return seen.borrow_mut().broke = true,
        }
    }
}

/// A call that vanishes without a trace when its proxy was killed.
pub struct Mortal<F: Future> {
    future: Option<Pin<Box<F>>>,
    killed: Rc<Cell<bool>>,
}

impl<F: Future> Mortal<F> {
    pub fn new(future: F, killed: &Rc<Cell<bool>>) -> Self {
        Self { future: Some(Box::pin(future)), killed: Rc::clone(killed) }
    }
}

impl<F: Future> Future for Mortal<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().unwrap().as_mut().poll(cx)
    }
}

impl<F: Future> Drop for Mortal<F> {
    fn drop(&mut self) {
        if self.killed.get() {
            std::mem::forget(self.future.take());
        }
    }
}
