"""Which test shows which item: the one table. What stands here and was not seen by its test fails that test.

An item that ends in `*` means all that begin like this and are not missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tests.contracts import files, surface

PLACES = {
    "primary": "spec.model.primary", "fallback": "spec.model.fallback", "fallbacks": "spec.model.fallback[]",
    "candidates": "spec.model.default.candidates[]", "role": "spec.model.roles.*.candidates[]",
}  # fmt: skip
SERVERS = ("openai", "openai_compat", "openai-compat", "vllm", "llamacpp", "llama_cpp", "hf_tgi", "ollama", "openrouter")

SHOWN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "test_what_a_node_tells": {
        "test_a_node_is_alive_and_ready_and_says_for_whom": ("GET /v1/health *", "GET /v1/ready *"),
        "test_two_nodes_tell_of_each_other": (
            "GET /v1/system/status *", "GET /v1/mesh/state 200", "GET /v1/mesh/state {*", "POST /v1/mesh/join 200",
            "POST /v1/mesh/join asked *",
            "POST /v1/mesh/leave 200", "GET /v1/nodes *", "GET /v1/models *", "GET /v1/agents 200", "GET /v1/agents ?*", "route peer",
            "behaviour: any node answers for any agent and any model of the mesh",
            *(f"GET /v1/agents {{agents[].{key}}}" for key in ("name", "version", "namespace", "status", "nodes", "warnings")),
        ),
        "test_a_node_whose_mesh_is_off_says_so": (
            "GET /v1/mesh/state 503", "POST /v1/mesh/join 503", "POST /v1/mesh/leave 503", "failure 503 mesh_off",
        ),
        "test_servers_are_listed_with_their_health": ("GET /v1/providers *",),
        "test_runs_are_found_again_as_traces": (
            "GET /v1/traces *", "GET /v1/traces/{id} *", "GET /metrics *", "GET /v1/metrics *", "header X-Request-Id",
            "asked header X-Request-Id",
            "span agent.run",
            "span llm.complete",
        ),
        "test_builtin_tools_and_those_of_agents_are_listed_and_called": (
            "GET /v1/tools *", "GET /v1/tools/builtin *", "POST /v1/tools/execute *",
        ),
        "test_a_history_is_shown_and_deleted": (
            "GET /v1/memory/{agent}/history/{session} *", "DELETE /v1/memory/{agent}/history/{session} *", "span memory_build",
            "span memory_persist",
        ),
        "test_the_description_names_every_route_that_answers": ("GET /openapi.json *", "GET /docs *"),
        "test_every_route_answers_with_and_without_a_trailing_slash": (
            "behaviour: every route answers with and without a trailing slash",
        ),
        "test_a_refused_request_is_a_problem[host]": ("problem {*", "failure 403 foreign_origin"),
        "test_a_refused_request_is_a_problem[origin]": ("behaviour: a page of another origin drives nothing",),
        "test_a_refused_request_is_a_problem[type]": ("failure 415 unsupported_media_type",),
        "test_a_refused_request_is_a_problem[syntax]": ("failure 400 malformed_body",),
        "test_a_refused_request_is_a_problem[bytes]": ("failure 413 body_too_large",),
        "test_a_refused_request_is_a_problem[values]": ("failure 413 too_many_values",),
        "test_a_refused_request_is_a_problem[key]": ("failure 422 invalid_request",),
        "test_an_unknown_key_is_answered_with_those_that_there_are": (
            "behaviour: an unknown key is answered with those that there are",
        ),
        "test_files_are_read_again_all_of_them_or_none": ("POST /v1/system/reload *",),
        "test_a_bad_file_is_named_with_its_line_and_the_others_run": (
            "GET /v1/agents {agents[].error}", "behaviour: one bad file never stops the node",
        ),
    },
    "test_what_becomes_of_agents": {
        "test_an_agent_is_a_draft_then_deployed_then_paused_then_removed": (
            "POST /v1/agents 201", "POST /v1/agents {*", "POST /v1/agents asked *", "POST /v1/agents ?*", "PUT /v1/agents/{name} 200",
            "PUT /v1/agents/{name} {*", "PUT /v1/agents/{name} asked *", "PUT /v1/agents/{name} ?*", "DELETE /v1/agents/{name} 200",
            "DELETE /v1/agents/{name} {*", "DELETE /v1/agents/{name} ?*", "POST /v1/agents/{name}/deploy 200",
            "POST /v1/agents/{name}/deploy {*",
            "POST /v1/agents/{name}/deploy ?*", "POST /v1/agents/{name}/pause 200", "POST /v1/agents/{name}/pause {*",
            "POST /v1/agents/{name}/pause ?*", "failure 404 agent_not_deployed", "failure 503 agent_paused", f"{surface.RUN} 503",
        ),
        "test_a_document_is_shown_with_its_secrets_masked": ("GET /v1/agents/{name} *", "behaviour: a secret is shown masked"),
        "test_what_cannot_be_stored_or_run_is_refused_and_changes_nothing": (
            "POST /v1/agents 409", "POST /v1/agents 422", "POST /v1/agents/{name}/deploy 400", "POST /v1/agents/{name}/pause 400",
            "failure 422 invalid_document",
        ),
        "test_what_nobody_has_is_404_on_every_route": (
            "PUT /v1/agents/{name} 404", "DELETE /v1/agents/{name} 404", "POST /v1/agents/{name}/deploy 404",
            "POST /v1/agents/{name}/pause 404",
            "failure 404 agent_not_found",
        ),
        "test_agents_of_two_namespaces_share_a_name_and_nothing_else": (f"{surface.RUN} ?namespace", f"{surface.RUN} 404"),
    },
    "test_what_a_run_tells": {
        "test_a_conversation_that_another_node_takes_over_is_in_one_trace": ("span peer.call",),
        "test_an_answer_has_every_key_and_its_headers_say_who_made_it": (
            f"{surface.RUN} 200", f"{surface.RUN} asked *", "header X-Astromesh-Node", "header X-Astromesh-Home",
            "header X-Astromesh-Route",
            "header X-Astromesh-Attempts", "route local", "span tool.call", "span handoff",
            *(f"{surface.RUN} {{{key}}}" for key in surface.RESULT.split() if not key.startswith(("blocked", "guardrail"))),
        ),
        "test_a_stream_tells_what_happens_as_it_happens": (
            "asked header Accept", *(f"stream event {kind} {{*" for kind in surface.EVENTS if kind not in ("status", "error",
            "failover")),
        ),
        "test_tokens_arrive_through_another_node_while_the_model_still_speaks": (
            "behaviour: token events are tokens as the model makes them, through every hop",
        ),
        "test_a_turn_that_waits_for_another_of_its_session_says_so": ("stream event status *",),
        "test_an_error_after_the_first_token_is_the_last_event": ("stream event error *",),
        "test_a_websocket_tells_the_same_and_outlives_bad_json_and_a_cancel": (f"{surface.SOCKET} *", "socket event *"),
        "test_a_run_is_cancelled_over_its_websocket_and_by_its_id": ("DELETE /v1/runs/{id} *",),
        "test_a_run_is_read_again_from_behind_an_event": ("GET /v1/runs/{id}/events *", "asked header Last-Event-ID"),
        "test_a_client_that_goes_away_cancels_its_run": ("behaviour: a client that goes away cancels its run",),
        "test_personal_data_is_redacted_on_its_way_in_and_out": (
            "behaviour: personal data is redacted as [REDACTED_EMAIL], [REDACTED_PHONE], [REDACTED_SSN], [REDACTED_CC]",
        ),
        "test_a_guardrail_that_blocks_is_an_outcome": (
            *(f"{surface.RUN} {{{key}}}" for key in surface.RESULT.split() if key.startswith(("blocked", "guardrail"))),
        ),
        "test_a_run_that_cannot_be_meant_is_422": (f"{surface.RUN} 422",),
        "test_a_run_that_takes_too_long_is_504_with_what_was_done": (
            f"{surface.RUN} 504", "problem 504 *", "Agent spec.orchestration.timeout_seconds",
        ),
        "test_too_many_runs_are_429": (f"{surface.RUN} 429",),
        "test_a_session_whose_home_is_gone_is_503": ("failure 503 session_home_unreachable", "header Retry-After"),
        "test_every_way_in_which_no_model_answers_has_its_code_and_a_hint_that_names_the_knob": (
            f"{surface.RUN} 502", "failure 502 *", "problem 502 *",
        ),
        "test_a_breaker_opens_after_three_failures_of_an_endpoint_and_not_for_the_callers_mistakes": (
            "behaviour: a breaker opens after three failures of an endpoint, and not for mistakes of the caller's",
        ),
    },
    "test_what_openai_clients_see": {
        "test_their_client_asks_and_streams_a_model_and_hands_it_tools": (
            f"{surface.CHAT} 200", f"{surface.CHAT} {{*", f"{surface.CHAT} asked *", "header X-Astromesh-Ignored",
            "behaviour: the OpenAI client asks a model", "behaviour: the OpenAI client streams a model",
            "behaviour: the OpenAI client hands tools to a model",
        ),
        "test_their_client_asks_and_streams_an_agent_and_may_name_a_session_of_ours": (
            "asked header X-Astromesh-Session", "behaviour: the OpenAI client asks an agent",
            "behaviour: the OpenAI client streams an agent",
        ),
        "test_their_client_raises_its_own_errors": (
            *(f"{surface.CHAT} {code}" for code in (400, 404, 429, 502, 504)), "failure 404 model_not_found",
            "behaviour: the OpenAI client raises its own errors",
        ),
        "test_a_model_that_was_offered_and_is_gone_is_503_and_says_when_to_come_back": (
            f"{surface.CHAT} 503", "failure 503 model_unavailable",
        ),
        "test_their_client_embeds_texts_and_goes_on_with_prompts": (
            f"{surface.EMBEDDINGS} *", f"{surface.COMPLETIONS} 400", f"{surface.COMPLETIONS} 404", f"{surface.COMPLETIONS} asked *",
        ),
    },
    "test_who_remembers_what": {
        "test_two_clients_without_a_session_id_share_nothing": ("behaviour: clients without a session_id share nothing",),
        "test_two_agents_given_the_same_session_id_share_nothing": (
            "behaviour: agents given the same session_id share nothing",
        ),
        "test_an_agent_without_memory_remembers_nothing": ("behaviour: an agent without memory remembers nothing",),
        **{
            f"test_a_later_turn_sees_the_earlier_ones[{strategy}]": (
                f"behaviour: a later turn sees the earlier ones under {strategy}",
                f"Agent spec.memory.conversational.strategy: {strategy}",
                *(("Agent spec.memory.conversational.window_size",) if strategy == "summary" else ()),
            )
            for strategy in ("sliding_window", "token_budget", "summary")
        },
        "test_a_conversation_kept_in_sqlite_outlives_the_node_and_one_in_memory_does_not": (
            "Agent spec.memory.conversational.backend", "Agent spec.memory.conversational.backend: sqlite",
            "Agent spec.memory.conversational.backend: in_memory",
        ),
        "test_what_falls_out_of_a_window_of_tokens_or_turns_is_not_sent": (
            "Agent spec.memory.conversational.max_turns", "Agent spec.memory.conversational.max_tokens",
            "Agent spec.memory.conversational.strategy",
        ),
        "test_turns_that_leave_the_window_are_summed_up": (),
        "test_a_history_is_forgotten_after_its_time": ("Agent spec.memory.conversational.ttl",),
    },
    "test_keys_of_models": {
        **{
            f"test_a_model_is_asked_where_and_as_its_document_says[{place}]": (
                *(f"Agent {where}.{key}" for key in ("provider", "model", "endpoint", "api_key", "api_key_env", "timeout",
                "provider_ref", "source")),
                f"Agent {where}.parameters.*", f"Agent {where}.context_window",
            )
            for place, where in PLACES.items()
        },
        **{
            f"test_a_model_of_the_mesh_answers_where_its_node_has_what_is_required[{place}]": (f"Agent {where}.requires.*",)
            for place, where in PLACES.items()
        },
        **{f"test_what_a_model_cannot_do_in_time_or_hold_is_not_waited_for[{place}]": () for place in PLACES},
        "test_a_name_may_pin_the_file_of_a_model": ("behaviour: a model's name may pin its file",),
        "test_models_of_a_node_are_loaded_as_its_file_says": (
            "RuntimeConfig spec.inference.models_dir", "RuntimeConfig spec.inference.memory_budget_mb",
            "RuntimeConfig spec.inference.idle_unload_seconds", "RuntimeConfig spec.inference.engine",
            "RuntimeConfig spec.inference.engine: auto",
            "RuntimeConfig spec.inference.models[].*",
        ),
        **{
            f"test_a_strategy_says_who_is_asked_first[{strategy}-]": (
                f"Agent spec.model.routing.strategy: {strategy}", f"Agent spec.model.default.strategy: {strategy}",
                f"Agent spec.model.roles.*.strategy: {strategy}", f"ProviderConfig spec.routing.default_strategy: {strategy}",
                *(("Agent spec.model.routing.strategy", "Agent spec.model.default.strategy", "Agent spec.model.roles.*.strategy",
                    "ProviderConfig spec.routing.default_strategy", "ProviderConfig spec.routing.fallback_enabled",
                    *(f"ProviderConfig spec.providers.*.models[].{key}" for key in (
                        "name", "cost_per_1k_tokens", "quality_score", "capabilities.tools"))) if number == 0 else ()),
            )
            for number, strategy in enumerate(("cost_optimized", "quality_first", "round_robin", "capability_match", "latency_optimized"))
        },
        "test_without_fallbacks_only_the_first_is_asked": ("ProviderConfig spec.routing.fallback_enabled",),
        **{
            f"test_a_breaker_opens_and_tries_again_as_the_file_says[{where}-{written}]": (
                f"{section}.circuit_breaker.failure_threshold", f"{section}.circuit_breaker.{key}",
            )
            for where, section in (
                ("routing", "ProviderConfig spec.routing"), ("provider", "ProviderConfig spec.providers.*"), ("resource",
                "Provider spec"),
            )
            for written, key in (("recovery_timeout", "recovery_timeout"), ("cooldownSeconds", "cooldown_seconds"))
        },
        "test_servers_of_every_type_answer_with_and_without_v1_and_with_keys": (
            "behaviour: an endpoint is accepted with and without /v1", "ProviderConfig spec.providers.*.type",
            *(f"ProviderConfig spec.providers.*.type: {kind}" for kind in SERVERS),
            *(f"Provider spec.type: {kind}" for kind in SERVERS), "ProviderConfig spec.providers.*.endpoint",
            "ProviderConfig spec.providers.*.api_key", "ProviderConfig spec.providers.*.api_key_env",
            "ProviderConfig spec.providers.*.models",
        ),
        "test_a_server_may_be_a_resource_of_its_own[api_key]": (
            "kind Provider", "Provider apiVersion", "Provider metadata.*", "Provider spec.type", "Provider spec.type: openai_compat",
            "Provider spec.endpoint",
            "Provider spec.api_key", "Provider spec.models", "Provider spec.share", "Provider spec.share: none",
            "Provider spec.models[].name",
            "Provider spec.models[].cost_per_1k_tokens", "Provider spec.models[].quality_score",
            "Provider spec.models[].capabilities.tools",
        ),
        "test_a_server_may_be_a_resource_of_its_own[api_key_env]": ("Provider spec.api_key_env", "Provider spec.health_check_interval"),
        "test_a_server_is_asked_for_its_health_as_often_and_where_its_document_says[ProviderConfig]": (
            "ProviderConfig spec.providers.*.health_check.*", "ProviderConfig spec.providers.*.health_check_interval",
            *(f"ProviderConfig spec.providers.*.{key}" for key in ("share", "share: none", "share: mesh")),
        ),
        "test_a_server_is_asked_for_its_health_as_often_and_where_its_document_says[Provider]": (
            "Provider spec.health_check.*", "Provider spec.health_check_interval", "Provider spec.share: mesh",
        ),
        "test_an_agent_says_how_often_its_servers_are_asked_for_their_health": ("Agent spec.model.routing.health_check_interval",),
        "test_what_is_shared_is_offered_to_the_mesh_unless_it_has_a_key_or_a_price": (),
    },
    "test_keys_of_agents": {
        "test_an_agent_is_shown_as_its_document_names_it": (
            "kind Agent", "kind ProviderConfig", "kind RuntimeConfig", "Agent apiVersion", "Agent metadata.*", "Agent spec.identity.*",
            "ProviderConfig apiVersion", "ProviderConfig metadata.*",
            "RuntimeConfig apiVersion", "RuntimeConfig metadata.*",
        ),
        "test_a_document_takes_variables_from_the_environment[astromesh.io/v1alpha1]": ("Agent apiVersion",),
        "test_a_document_takes_variables_from_the_environment[astromesh/v1]": (
            "behaviour: ${VAR} and ${VAR:-default} come from the environment, and both apiVersions are accepted",
        ),
        "test_keys_may_be_written_in_camel_case": ("behaviour: keys may be written in camelCase",),
        "test_prompts_are_templates_and_what_is_undefined_is_empty": ("Agent spec.prompts.*",),
        "test_an_answer_obeys_its_schema": ("Agent spec.output_schema",),
        "test_react_answers_and_calls_tools_until_its_iterations_are_over": (
            "Agent spec.orchestration.pattern", "Agent spec.orchestration.pattern: react", "Agent spec.orchestration.max_iterations",
            "Agent spec.orchestration.timeout", "Agent spec.orchestration.max_tool_result_tokens",
        ),
        "test_a_pipeline_goes_through_its_stages": ("Agent spec.orchestration.pattern: pipeline", "Agent spec.orchestration.stages*"),
        "test_a_fan_out_asks_all_its_workers_and_merges_what_they_say[model]": (
            "Agent spec.orchestration.pattern: parallel_fan_out", "Agent spec.orchestration.merge",
            "Agent spec.orchestration.merge: model",
            "Agent spec.orchestration.workers*",
        ),
        **{
            f"test_a_fan_out_asks_all_its_workers_and_merges_what_they_say[{merge}]": (f"Agent spec.orchestration.merge: {merge}",)
            for merge in ("vote", "concat")
        },
        "test_a_supervisor_gives_tasks_to_its_workers": ("Agent spec.orchestration.pattern: supervisor",),
        "test_a_plan_is_made_and_carried_out": ("Agent spec.orchestration.pattern: plan_and_execute",),
        "test_a_team_works_through_a_plan_of_its_specialists": ("Agent spec.orchestration.pattern: team",),
        "test_a_swarm_hands_on_only_so_often[max_handoffs]": (
            "Agent spec.orchestration.pattern: swarm", "Agent spec.orchestration.max_handoffs", "Agent spec.orchestration.peers*",
        ),
        "test_a_swarm_hands_on_only_so_often[max_hand_offs]": ("Agent spec.orchestration.max_hand_offs",),
        **{
            f"test_a_node_may_let_every_agent_fan_out[{merge}]": (
                "RuntimeConfig spec.defaults.orchestration.pattern: parallel_fan_out",
                f"RuntimeConfig spec.defaults.orchestration.merge: {merge}",
            )
            for merge in ("model", "concat")
        },
        "test_what_an_agent_does_not_say_of_its_orchestration_the_node_says": (
            *(f"RuntimeConfig spec.defaults.orchestration.{key}" for key in (
                "pattern", "pattern: react", "pattern: plan_and_execute", "max_iterations", "timeout_seconds", "timeout", "max_handoffs",
                "max_hand_offs", "max_tool_result_tokens", "merge", "merge: vote")),
        ),
        **{
            f"test_a_rule_that_blocks_answers_with_its_message[{way}]": (
                *(f"Agent spec.guardrails.{way}[].{key}" for key in (
                    "type", "type: pii_detection", "type: topic_filter", "type: max_length", "type: content_filter", "action",
                    "action: block",
                    "message", "blocked_topics", "forbidden_topics", "allowed_topics", "max_chars", "max_characters", "blocked_patterns",
                    "forbidden_keywords")),
            )
            for way in ("input", "output")
        },
        **{
            f"test_a_rule_may_redact_or_warn_instead[{way}]": tuple(
                f"Agent spec.guardrails.{way}[].action: {act}" for act in ("redact", "warn")
            )
            for way in ("input", "output")
        },
        **{
            f"test_a_limit_of_costs_cuts_an_answer_and_ends_a_session[{way}]": tuple(
                f"Agent spec.guardrails.{way}[].{key}" for key in ("type: cost_limit", "max_tokens_per_turn", "max_tokens_per_session")
            )
            for way in ("input", "output")
        },
    },
    "test_keys_of_tools": {
        "test_a_builtin_tool_is_offered_under_its_description_and_its_result_is_cut": (
            *(f"Agent spec.tools[].{key}" for key in ("type", "type: builtin", "name", "description", "max_result_tokens")),
        ),
        "test_a_webhook_is_sent_its_arguments_where_the_node_lists_the_address_and_nowhere_else": (
            *(f"Agent spec.tools[].{key}" for key in ("type: webhook", "url", "endpoint", "method", "headers", "parameters")),
            "RuntimeConfig spec.tools.http.allow",
            "behaviour: tools never reach loopback or private addresses that the node does not list",
        ),
        "test_another_agent_is_a_tool": ("Agent spec.tools[].type: agent", "Agent spec.tools[].agent"),
        "test_a_python_function_is_a_tool_where_the_node_lists_its_module_and_nowhere_else": (
            "Agent spec.tools[].type: internal", "Agent spec.tools[].function", "RuntimeConfig spec.tools.modules",
        ),
        "test_a_rate_limit_refuses_calls_and_says_when_to_come_back": ("Agent spec.tools[].rate_limit.*",),
        "test_a_tool_that_may_not_be_used_is_not_offered[denied]": (
            "Agent spec.tools[].permissions", "Agent spec.permissions.denied_actions",
        ),
        "test_a_tool_that_may_not_be_used_is_not_offered[allowed]": ("Agent spec.permissions.allowed_actions",),
        "test_the_network_is_taken_away_and_a_dry_run_calls_nothing": (
            "Agent spec.permissions.network.allowed", "Agent spec.permissions.execution.dry_run",
        ),
    },
    "test_keys_of_nodes": {
        "test_a_node_listens_and_joins_as_its_file_says[lan-fast]": (
            "RuntimeConfig spec.api.host", "RuntimeConfig spec.api.port", "RuntimeConfig spec.api.tls: off",
            "RuntimeConfig spec.mesh.profile",
            "RuntimeConfig spec.mesh.profile: lan-fast",
            *(f"RuntimeConfig spec.mesh.{key}" for key in ("node_name", "bind", "seeds", "cluster_id", "keyring_file", "enabled")),
        ),
        **{
            f"test_a_node_listens_and_joins_as_its_file_says[{profile}]": (f"RuntimeConfig spec.mesh.profile: {profile}",)
            for profile in ("lan", "wan")
        },
        **{
            f"test_what_files_ask_for_in_vain_is_said_by_the_node_that_runs_on_them[{kind}]": () for kind in ("kind", *files.KINDS)
        },
    },
}  # fmt: skip

# By tests of other folders, where more than the doors of a node is needed.
SHOWN_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "tests/astromesh/api/test_choices.py::test_a_prompt_is_gone_on_with_as_it_stands": (
        f"{surface.COMPLETIONS} 200", f"{surface.COMPLETIONS} {{*",
    ),
    "tests/astromesh/runtime/test_engines.py::test_an_engine_that_is_named_is_taken_whatever_else_is_there": (
        "RuntimeConfig spec.inference.engine: llama_cpp", "RuntimeConfig spec.inference.engine: xllamacpp",
    ),
    "tests/interop/test_serf_layer.py::test_whoever_leaves_has_left_for_either_kind_and_nobody_ever_failed": (
        "RuntimeConfig spec.mesh.serf",
    ),
    "tests/cluster/test_sealed_nodes.py::test_nodes_of_different_clusters_stay_apart": ("RuntimeConfig spec.mesh.cluster_id",),
}  # fmt: skip


@cache
def items() -> tuple[str, ...]:
    """Everything that is promised, each once."""
    return tuple(dict.fromkeys((*surface.doors(), *files.keys())))


@cache
def claims(file: str, test: str) -> tuple[str, ...]:
    """What a test of this folder is said to show."""
    said = SHOWN.get(file, {}).get(test, ())
    return tuple(item for claim in said for item in _meant(claim))


def shown() -> Mapping[str, str]:
    """Each item that a test shows, and the first one that does."""
    found: dict[str, str] = {}
    here = {f"{file}::{test}": said for file, tests in SHOWN.items() for test, said in tests.items()}
    for test, said in (*here.items(), *SHOWN_ELSEWHERE.items()):
        for claim in said:
            for item in _meant(claim):
                found.setdefault(item, test)
    return found


def _meant(claim: str) -> tuple[str, ...]:
    if not claim.endswith("*"):
        return (claim,)
    return tuple(item for item in items() if item.startswith(claim[:-1]) and not surface.missing(item))
