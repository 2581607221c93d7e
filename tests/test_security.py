"""Keys go where their user said, names stay inside their folders, files of strangers are data."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import toolkit
from tests.embedding_server import DIM, MODEL, EmbeddingServer, status
from toolkit.embedding import keys
from toolkit.embedding.config import RemoteConfig, parse_spec
from toolkit.embedding.open import open_embedder
from toolkit.errors import PlanError, ServerError
from toolkit.experiment.plan import make_plan, read_plan
from toolkit.files import safe_name

SECRET = "sk-a-key-of-mine"
PACKAGE = Path(toolkit.__file__).parent


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (keys.ALLOWED, "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MY_PASSWORD", "hunter2")


@pytest.fixture
def server():
    with EmbeddingServer() as running:
        yield running


def sent(server, embedder):
    """Everything the server was told in headers while it was opened."""
    open_embedder(embedder)
    return json.dumps([list(headers.items()) for headers in server.headers])


def test_openais_key_goes_to_no_other_host(server, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    told = sent(server, f"{server.url}#{MODEL}")
    assert SECRET not in told
    assert "org-mine" not in told


def test_a_host_that_the_user_names_gets_the_key(server, monkeypatch):
    monkeypatch.setenv(keys.ALLOWED, f"OTHER=https://x, OPENAI_API_KEY={server.url.removesuffix('/v1')}")
    assert SECRET in sent(server, f"{server.url}#{MODEL}")
    monkeypatch.delenv(keys.ALLOWED)
    server.headers.clear()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert SECRET in sent(server, f"{server.url}#{MODEL}")


def test_a_program_may_name_a_variable_for_its_host(server):
    assert "hunter2" in sent(
        server, RemoteConfig(base_url=server.url, model=MODEL, api_key_env="MY_PASSWORD")
    )


def test_a_plan_file_may_not(server, tmp_path, monkeypatch):
    path = tmp_path / "plan.toml"
    path.write_text(
        f'[embedder]\nkind = "remote"\nbase_url = "{server.url}"\nmodel = "{MODEL}"\napi_key_env = "MY_PASSWORD"\n'
    )
    with pytest.raises(PlanError, match="a file may not choose which environment variable") as caught:
        read_plan(path)
    place = server.url.removesuffix("/v1")
    assert f"{keys.ALLOWED}='MY_PASSWORD={place}'" in str(caught.value)
    monkeypatch.setenv(keys.ALLOWED, f"MY_PASSWORD={place}")
    assert "hunter2" in sent(server, read_plan(path).embedder)


def test_a_recorded_plan_names_no_variable():
    plan = make_plan(embedder=RemoteConfig(base_url="https://host/v1", model="m", api_key_env="MY_PASSWORD"))
    assert "MY_PASSWORD" not in plan.to_toml()
    assert "api_key_env" not in plan.to_toml()


@pytest.mark.parametrize(
    ("url", "allowed", "goes"),
    [
        ("https://api.openai.com/v1", "", True),
        ("http://api.openai.com/v1", "", False),
        ("https://api.openai.com.evil.example/v1", "", False),
        ("https://api.openai.com:444/v1", "", False),
        ("https://gateway.example/v1", "OPENAI_API_KEY=https://gateway.example:443", True),
        ("http://gateway.example/v1", "OPENAI_API_KEY=https://gateway.example", False),
        ("http://gateway.example/v1", "OPENAI_API_KEY=http://gateway.example", True),
        ("http://[::1]:8000/v1", "OPENAI_API_KEY=http://[::1]:8000", True),
    ],
)
def test_where_openais_key_goes(monkeypatch, url, allowed, goes):
    monkeypatch.setenv(keys.ALLOWED, allowed)
    key = keys.key_for(RemoteConfig(base_url=url, model="m"))
    assert key == (SECRET if goes else None)


def test_a_named_key_never_travels_unencrypted_beyond_this_machine(monkeypatch):
    config = RemoteConfig(base_url="http://10.0.0.5:8000/v1", model="m", api_key_env="MY_PASSWORD")
    with pytest.raises(PlanError, match="unencrypted"):
        keys.key_for(config)
    monkeypatch.setenv(keys.ALLOWED, "MY_PASSWORD=http://10.0.0.5:8000")
    assert keys.key_for(config) == "hunter2"
    with pytest.raises(PlanError, match="NOT_SET, which is not set"):
        keys.key_for(config.model_copy(update={"api_key_env": "NOT_SET"}))


def test_a_refusal_without_a_key_says_how_to_allow_one(server):
    server.always = status(401, {"error": {"message": "key?"}})
    with pytest.raises(
        ServerError, match=r"none was sent.*TOOLKIT_KEY_HOSTS='OPENAI_API_KEY=http://127"
    ) as caught:
        open_embedder(f"{server.url}#{MODEL}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_carry_neither_texts_nor_keys(server, code, monkeypatch):
    with EmbeddingServer() as other:
        server.always = status(code, {}, Location=f"{other.url}/embeddings")
        config = RemoteConfig(base_url=server.url, model=MODEL, api_key_env="MY_PASSWORD")
        with pytest.raises(ServerError, match="sends requests on to"):
            open_embedder(config)
        assert other.requests == other.headers == []


@pytest.mark.parametrize("rest", ["/v1#m", "/v1", "/v1?api_key=S3cret#m"])
def test_addresses_with_credentials_are_refused_and_never_repeated(rest):
    user = "" if "?" in rest else "user:S3cret@"
    for attempt in (parse_spec, lambda spec: make_plan(embedder=spec)):
        with pytest.raises(PlanError) as caught:
            attempt(f"http://{user}host{rest}")
        assert "S3cret" not in str(caught.value)
    with pytest.raises(PlanError) as caught:
        make_plan(embedder={"kind": "remote", "base_url": f"http://{user}host{rest}", "model": "m"})
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        ".hidden",
        "CON",
        "nul.txt",
        "x" * 500,
        "",
        "a\0b",
        "é" * 200,
        "...",
        "a. ",
    ],
)
def test_foreign_names_stay_in_their_folder(tmp_path, name):
    path = (tmp_path / f"{safe_name(name)}.json").resolve()
    assert path.parent == tmp_path.resolve()
    path.write_text("there")
    assert safe_name(name).split(".")[0].upper() not in {"CON", "NUL", ""}


def test_long_names_that_differ_at_the_end_stay_apart():
    assert safe_name("x" * 500 + "1") != safe_name("x" * 500 + "2")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda entries: [entry | {"embedding": [[0.1] * DIM]} for entry in entries], r"shape \(1, 48\)"),
        (lambda entries: [entry | {"embedding": 0.5} for entry in entries], "neither base64 nor numbers"),
        (
            lambda entries: [entry | {"index": bool(i)} for i, entry in enumerate(entries)],
            "which text each belongs",
        ),
    ],
    ids=["nested", "a number", "index true"],
)
def test_odd_answers_are_one_clear_error(server, edit, said):
    server.edit = edit
    with pytest.raises(ServerError, match=said) as caught:
        open_embedder(f"{server.url}#{MODEL}")
    assert "\n" not in str(caught.value)


def test_an_answer_nested_without_end_is_an_error(server):
    server.always = lambda _request: (200, {}, b"[" * 200_000)
    with pytest.raises(ServerError, match="not JSON"):
        open_embedder(f"{server.url}#{MODEL}")


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_that_a_file_holds_is_run(path):
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported.isdisjoint({"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "yaml"})
    for name, options in calls(tree):
        assert name not in {"eval", "exec", "pd.read_pickle", "torch.load"}, f"{path} calls {name}"
        if name == "np.load":
            assert options.get("allow_pickle") == "False", f"{path} loads arrays that may hold pickles"
