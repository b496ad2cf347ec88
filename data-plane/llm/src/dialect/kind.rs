//! What a call wants, and what follows from that.

/// How a call is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Inference: a model must be named, it is priced, limited and looked into.
    Metered,
    /// It costs nothing upstream: never billed, but refused where a limit is out.
    Free,
    /// What an upstream account keeps and all its callers share: refused unless the owner switched
    /// `upstreamResources` on.
    Resource,
}

impl Class {
    /// The word of the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metered => "metered",
            Self::Free => "free",
            Self::Resource => "resource",
        }
    }
}

/// What a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`: passed through, never billed.
    CountTokens,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/responses/compact`
    ResponsesCompact,
    /// `POST /v1/responses/input_tokens`: passed through, never billed.
    InputTokens,
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `GET /v1/models` and its variants: answered by the gateway.
    Models,
    /// `GET /v1/models/{id}`: answered by the gateway.
    Model,
    /// `POST /v1/moderations`: passed through, never billed; the model may be left out.
    Moderations,
    /// Other inference: embeddings, completions, images, audio, rerank, search. Passed through, metered by
    /// what usage the answer reports.
    OpenAiOther,
    /// Files, batches, fine-tuning, threads, stored responses and all that an account keeps: passed through,
    /// not billed.
    OpenAiResource,
    /// Anthropic's files, message batches and the like: passed through, not billed.
    AnthropicResource,
}

impl EndpointKind {
    /// How it is treated.
    pub const fn class(self) -> Class {
        match self {
            Self::Messages
            | Self::Responses
            | Self::ResponsesCompact
            | Self::ChatCompletions
            | Self::OpenAiOther => Class::Metered,
            Self::CountTokens | Self::InputTokens | Self::Moderations | Self::Models | Self::Model => {
                Class::Free
            }
            Self::OpenAiResource | Self::AnthropicResource => Class::Resource,
        }
    }

    /// Whether answers are scanned for usage and billed.
    pub const fn is_metered(self) -> bool {
        matches!(self.class(), Class::Metered)
    }

    /// Whether it reaches what an upstream account keeps.
    pub const fn is_resource(self) -> bool {
        matches!(self.class(), Class::Resource)
    }

    /// Whether the body must name a model.
    pub const fn needs_model(self) -> bool {
        self.is_metered() || matches!(self, Self::CountTokens | Self::InputTokens)
    }

    /// Whether the body may be a form (`multipart/form-data`) instead of JSON.
    pub const fn takes_form(self) -> bool {
        matches!(self, Self::OpenAiOther)
    }

    /// Whether the gateway answers by itself.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Models | Self::Model)
    }

    /// Whether it is a conversation, whose turns should stay with one provider.
    pub const fn has_session(self) -> bool {
        matches!(
            self,
            Self::Messages
                | Self::CountTokens
                | Self::Responses
                | Self::ResponsesCompact
                | Self::InputTokens
                | Self::ChatCompletions
        )
    }
}
