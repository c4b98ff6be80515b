//! The table of endpoints: paths and methods from the endpoint types, in a form that can be listed.

use std::{any::TypeId, collections::BTreeSet};

use axum::{
    Extension, Router,
    handler::Handler,
    routing::{MethodFilter, MethodRouter, on},
};
use http::Method;
use ruma::api::{
    IncomingRequest,
    auth_scheme::{AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional},
    path_builder::PathBuilder,
};

use crate::ruma::{BodyLimit, Omitted};

/// Who may call, as the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auth {
    /// Anybody, or a scheme that the handler checks itself.
    None,
    /// A user's access token is needed.
    Token,
    /// A user's access token makes a difference.
    TokenOptional,
    /// An application service's token.
    Appservice,
}

/// One method at one path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The path, with parameters as the endpoint type names them: `/_matrix/client/v3/rooms/{room_id}/send`.
    pub path: String,
    /// The method; `HEAD` goes with `GET`.
    pub method: String,
    /// Who may call.
    pub auth: Auth,
}

impl Route {
    /// The path as the router knows it and `MatchedPath` shows it: parameters are numbered there.
    pub fn pattern(&self) -> String {
        numbered(&self.path)
    }
}

/// Endpoints with their handlers.
#[derive(Clone, Debug)]
pub struct Routes<S> {
    router: Router<S>,
    table: BTreeSet<Route>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), table: BTreeSet::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No endpoints.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers an endpoint under every path it ever had (`v3`, `r0`, unstable).
    #[must_use]
    pub fn on<T, A>(self, handler: impl Handler<A, S>) -> Self
    where
        T: IncomingRequest,
        T::Authentication: 'static,
        A: 'static,
    {
        self.add::<T>(&on(filter(&T::METHOD), handler))
    }

    /// The same, with another limit on the body, in bytes.
    #[must_use]
    pub fn on_limited<T, A>(self, limit: usize, handler: impl Handler<A, S>) -> Self
    where
        T: IncomingRequest,
        T::Authentication: 'static,
        A: 'static,
    {
        self.add::<T>(&on(filter(&T::METHOD), handler).layer(Extension(BodyLimit(limit))))
    }

    /// The same under paths that end before the last arguments, which are `omitted`: the version segment and all before
    /// the parameters come from the endpoint type, `cut` segments are taken off the end. A trailing slash is
    /// understood as well.
    #[must_use]
    pub fn on_shortened<T, A>(
        mut self,
        cut: usize,
        omitted: &'static [&'static str],
        handler: impl Handler<A, S>,
    ) -> Self
    where
        T: IncomingRequest,
        T::Authentication: 'static,
        A: 'static,
    {
        let method = on(filter(&T::METHOD), handler).layer(Extension(Omitted(omitted)));
        for path in paths::<T>() {
            let segments: Vec<&str> = path.split('/').collect();
            let short = segments[..segments.len().saturating_sub(cut)].join("/");
            self = self.place(format!("{short}/"), &T::METHOD, auth::<T>(), method.clone());
            self = self.place(short, &T::METHOD, auth::<T>(), method.clone());
        }
        self
    }

    /// Answers a path that no endpoint type knows.
    #[must_use]
    pub fn at<A: 'static>(
        self,
        method: &Method,
        path: &str,
        auth: Auth,
        handler: impl Handler<A, S>,
    ) -> Self {
        self.place(path.to_owned(), method, auth, on(filter(method), handler))
    }

    /// The endpoints of another table as well.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.table.extend(other.table);
        self
    }

    /// What is answered, sorted by path.
    pub fn table(&self) -> &BTreeSet<Route> {
        &self.table
    }

    /// The router, to be [`crate::finish`]ed.
    pub fn into_router(self) -> Router<S> {
        self.router
    }

    fn add<T>(mut self, method: &MethodRouter<S>) -> Self
    where
        T: IncomingRequest,
        T::Authentication: 'static,
    {
        for path in paths::<T>() {
            self = self.place(path.to_owned(), &T::METHOD, auth::<T>(), method.clone());
        }
        self
    }

    fn place(mut self, path: String, method: &Method, auth: Auth, handler: MethodRouter<S>) -> Self {
        let pattern = numbered(&path);
        let route = Route { path, method: method.to_string(), auth };
        if self.table.insert(route) {
            self.router = self.router.route(&pattern, handler);
        }
        self
    }
}

fn paths<T: IncomingRequest>() -> BTreeSet<&'static str> {
    T::PATH_BUILDER.all_paths().collect()
}

fn auth<T>() -> Auth
where
    T: IncomingRequest,
    T::Authentication: 'static,
{
    let scheme = TypeId::of::<T::Authentication>();
    if scheme == TypeId::of::<AccessToken>() {
        Auth::Token
    } else if scheme == TypeId::of::<AccessTokenOptional>() {
        Auth::TokenOptional
    } else if scheme == TypeId::of::<AppserviceToken>() || scheme == TypeId::of::<AppserviceTokenOptional>() {
        Auth::Appservice
    } else {
        Auth::None
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("Matrix uses the usual methods")
}

/// Names parameters by their place: endpoints name one place differently, which the router does not take.
fn numbered(path: &str) -> String {
    let number = |(index, segment): (usize, &str)| match segment.starts_with('{') {
        true if segment.starts_with("{*") => format!("{{*p{index}}}"),
        true => format!("{{p{index}}}"),
        false => segment.to_owned(),
    };
    path.split('/').enumerate().map(number).collect::<Vec<_>>().join("/")
}
