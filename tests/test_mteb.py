"""Embedders as mteb encoders, local data as mteb tasks, sweeps from one encode, and mteb's own results."""

import json
import warnings
from dataclasses import replace

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.mocks.mock_tasks import (
    LegacyMockClusteringFastTask,
    MockBitextMiningTask,
    MockClassificationTask,
    MockMultilabelClassification,
    MockPairClassificationTask,
    MockRerankingTask,
    MockRetrievalTask,
    MockSTSTask,
    MockSummarizationTask,
)
from mteb.types import PromptType

from toolkit import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DataError, DimensionError, PlanError, ResultsError
from toolkit.measure.quality import evaluate, spearman
from toolkit.mteb_adapter import (
    MtebEncoder,
    benchmark_means,
    language_matrix,
    local_task,
    main_scores,
    open_tasks,
    read_frame,
    score_kept,
    sweep_tasks,
)
from toolkit.mteb_adapter.compat import retrieval_loader, retrieval_scores
from toolkit.mteb_adapter.encoder import model_meta
from toolkit.mteb_adapter.tasks import load_mteb, load_task_data, to_set
from toolkit.search.exact.search import exact_search
from toolkit.space import QWEN3_DEFAULT_TASK, QWEN3_PROMPTS, Instruction, Prompts, Role

# One mock task of mteb for each type the sweep has to run.
MOCKS = [
    MockBitextMiningTask,
    MockClassificationTask,
    LegacyMockClusteringFastTask,
    MockMultilabelClassification,
    MockPairClassificationTask,
    MockRerankingTask,
    MockRetrievalTask,
    MockSTSTask,
    MockSummarizationTask,
]


class Counting:
    """The static embedder, counting the texts it has to encode; prompts can be given to it."""

    def __init__(self, prompts=None):
        self._inner = StaticEmbedder()
        self.space = self._inner.space if prompts is None else self._inner.space.with_prompts(prompts)
        self.texts = []

    def stream(self, texts):
        self.texts += texts
        return self._inner.stream(texts)

    def encode(self, texts):
        return self._inner.encode(texts)


def small_retrieval(name="small", documents=60):
    words = np.random.default_rng(0).permutation(
        [
            f"{a} {b}"
            for a in ("red", "old", "tall", "wet", "loud")
            for b in ("house", "river", "bird", "road")
        ]
    )
    docs = [
        f"a text about the {words[i % 20]} and the {words[(i * 7 + i // 20) % 20]}" for i in range(documents)
    ]
    queries = [f"where is the {words[i]}" for i in range(12)]
    qrels = {f"q{i}": {f"d{i}": 2, f"d{i + 20}": 1} for i in range(12)}
    return RetrievalSet(name, [f"d{i}" for i in range(documents)], docs, list(qrels), queries, qrels)


def small_sts(name="small-sts"):
    left = ["a cat sits", "rain falls", "he reads a book", "they play chess", "a dog runs", "snow melts"]
    right = ["a cat is sitting", "the sun shines", "he eats", "two people play chess", "a car", "ice melts"]
    return PairSet(name, left, right, np.array([5.0, 1.0, 1.5, 4.5, 0.5, 3.0]))


# --- the encoder ------------------------------------------------------------------------------------


def test_mtebs_own_check_of_a_model_passes():
    encoder = MtebEncoder(StaticEmbedder(), dim=64)
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert mteb.mock_run(encoder).all_passed


def test_vectors_are_those_of_the_toolkit():
    embedder, data = StaticEmbedder(), small_retrieval()
    task = local_task(data)
    task.load_data()
    encoder = MtebEncoder(embedder, dim=64)
    corpus = task.dataset["default"]["test"]["corpus"]
    loader = retrieval_loader(corpus, metadata=task.metadata, prompt_type=PromptType.document)
    rows = encoder.encode(
        loader,
        task_metadata=task.metadata,
        hf_split="test",
        hf_subset="default",
        prompt_type=PromptType.document,
    )
    expected = embed_texts(embedder, data.docs, role=Role.DOCUMENT).at(64)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize(
    ("prompts", "instruction", "expected"),
    [
        (QWEN3_PROMPTS, "task", ("Instruct: Find it\nQuery:", "", "Instruct: Judge them\nQuery:")),
        (Prompts(query="query: ", document="passage: "), "task", ("query: ", "passage: ", "")),
        (Prompts(), "task", ("", "", "")),
    ],
)
def test_task_prompts_follow_mtebs_rules(prompts, instruction, expected):
    sees(prompts, instruction, expected)


@pytest.mark.parametrize(
    ("prompts", "instruction", "expected"),
    [
        (QWEN3_PROMPTS, "default", f"Instruct: {QWEN3_DEFAULT_TASK}\nQuery:"),
        (QWEN3_PROMPTS, None, f"Instruct: {QWEN3_DEFAULT_TASK}\nQuery:"),
        (QWEN3_PROMPTS, "none", ""),
        (QWEN3_PROMPTS, "Look", "Instruct: Look\nQuery:"),
        (Prompts(query="query: ", document="passage: "), "default", "query: "),
        (Prompts(query="query: ", document="passage: "), "none", "query: "),
        (Prompts(), "default", ""),
    ],
)
def test_an_instruction_means_the_same_to_mteb_and_to_a_sweep(prompts, instruction, expected):
    """Queries and both sides of a pair set: as `toolkit.sweep` embeds them."""
    sees(prompts, instruction, (expected, prompts.document, expected))
    space = Counting(prompts).space
    assert space.render("a text", Role.QUERY, instruction) == f"{expected}a text"


def sees(prompts, instruction, expected):
    for_query, for_document, without_role = expected
    embedder = Counting(prompts)
    encoder = MtebEncoder(embedder, instruction=instruction)
    data = small_retrieval()
    mteb.evaluate(encoder, local_task(data, prompt="Find it"), cache=None, show_progress_bar=False)
    wanted = {for_query + text for text in data.queries} | {for_document + text for text in data.docs}
    assert set(embedder.texts) == wanted
    embedder.texts.clear()
    pairs = small_sts()
    mteb.evaluate(encoder, local_task(pairs, prompt="Judge them"), cache=None, show_progress_bar=False)
    assert set(embedder.texts) == {without_role + text for text in [*pairs.left, *pairs.right]}


def test_each_setting_has_a_folder_of_its_own():
    plain = StaticEmbedder()
    settings = [
        MtebEncoder(plain, dim=dim, instruction=instruction)
        for dim in (256, 128, 64)
        for instruction in ("task", "default", "none", "why?", "why:")
    ]
    for change in ({"dtype": "bfloat16"}, {"max_tokens": 12}, {"prompts": Prompts(query="q: ")}):
        other = Counting()
        other.space = replace(other.space, **change)
        settings.append(MtebEncoder(other))
    metas = [encoder.mteb_model_meta for encoder in settings]
    assert len({(meta.name, meta.revision, meta.experiment_name) for meta in metas}) == len(metas)
    assert metas[0].experiment_kwargs is None
    assert metas[5].embed_dim == 128
    assert all(meta.similarity_fn_name.value == "cosine" for meta in metas)
    assert MtebEncoder(plain, dim=None).mteb_model_meta == MtebEncoder(plain, dim=256).mteb_model_meta


@pytest.mark.parametrize(
    "revision", ["http://host:8000/v1", "http://h/../../../../../../elsewhere", "..", "a/b\\c"]
)
def test_no_revision_leads_a_file_out_of_its_folder(tmp_path, revision):
    space = replace(StaticEmbedder().space, model="tiny/embedder", revision=revision)
    meta = model_meta(space, dim=64, instruction=Instruction("x/../../y"))
    path = mteb.ResultCache(tmp_path).get_task_result_path("small", meta)
    assert path.resolve().relative_to(tmp_path / "results").parts[0] == "tiny__embedder"
    assert (
        len(path.relative_to(tmp_path / "results").parts) == 5
    )  # model, revision, "experiments", name, file


def test_what_mteb_knows_of_a_model_stays():
    embedder = Counting()
    embedder.space = replace(embedder.space, model="Qwen/Qwen3-Embedding-4B", full_dim=2560, min_dim=32)
    meta = MtebEncoder(embedder, dim=256).mteb_model_meta
    known = mteb.get_model_meta("Qwen/Qwen3-Embedding-4B")
    assert (meta.name, meta.license, meta.n_parameters) == (known.name, known.license, known.n_parameters)
    assert (meta.embed_dim, known.embed_dim) == (256, 2560)


def test_a_dimension_or_precision_that_cannot_work_is_refused():
    with pytest.raises(DimensionError, match=r"choose 1\.\.256"):
        MtebEncoder(StaticEmbedder(), dim=257)
    with pytest.raises(PlanError, match="precision 'int8'"):
        mteb.evaluate(
            MtebEncoder(StaticEmbedder()), MockSTSTask(), cache=None, encode_kwargs={"precision": "int8"}
        )


# --- agreement with the toolkit's own search and measures ----------------------------------------------


def retrieval_subset(shared_data, name, queries=60, documents=900):
    whole = load_dataset(f"beir:{shared_data / name}")
    ids = whole.query_ids[:queries]
    needed = {doc for query in ids for doc in whole.qrels[query]}
    kept = [i for i, doc in enumerate(whole.doc_ids) if doc in needed or i < documents]
    qrels = {query: whole.qrels[query] for query in ids}
    doc_ids, docs = [whole.doc_ids[i] for i in kept], [whole.docs[i] for i in kept]
    return RetrievalSet(name, doc_ids, docs, ids, whole.queries[:queries], qrels)


@pytest.mark.parametrize("name", ["scifact", "cranfield"])
def test_retrieval_scores_equal_mtebs(shared_data, tmp_path, name):
    embedder, data = StaticEmbedder(), retrieval_subset(shared_data, name)
    docs = embed_texts(embedder, data.docs, role=Role.DOCUMENT)
    queries = embed_texts(embedder, data.queries, role=Role.QUERY)
    found = exact_search(docs.rows, queries.rows, [256, 64, 32], k=min(1_000, len(data.docs)))
    task, encoder = local_task(data), MtebEncoder(embedder)
    for dim, ranking in found.items():
        with warnings.catch_warnings(action="ignore"):  # 32 is below the model's stated minimum
            at_dim = encoder.at(dim)
        folder = tmp_path / str(dim)
        stated = task.evaluate(at_dim, "test", encode_kwargs={}, prediction_folder=folder)["default"]
        run = json.loads((folder / task.prediction_file_name).read_text())["default"]["test"]
        whole = retrieval_scores(run, data.qrels, task.k_values)
        per_query = [whole.all_scores[query] for query in data.query_ids]
        ours = evaluate(
            ranking,
            data.doc_ids,
            data.query_ids,
            data.qrels,
            metrics=["ndcg@10", "recall@10", "recall@100", "map@1000", "mrr@10"],
        )
        names = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "recall@100": "recall_100"}
        for metric, trec in {**names, "map@1000": "map_cut_1000"}.items():
            assert ours[metric].mean() == pytest.approx(np.mean([q[trec] for q in per_query]), abs=1e-6)
        assert ours["mrr@10"].mean() == pytest.approx(whole.mrr["MRR@10"], abs=1e-6)
        # What mteb writes is rounded to five digits.
        assert round(float(ours["ndcg@10"].mean()), 5) == pytest.approx(stated["ndcg_at_10"], abs=1e-6)


def test_sts_scores_equal_mtebs(shared_data):
    embedder = StaticEmbedder()
    data = load_dataset(f"pairs:{shared_data / 'stsb_en' / 'stsb_en.tsv'}")
    left, right = (embed_texts(embedder, side, role=Role.QUERY) for side in (data.left, data.right))
    task, encoder = local_task(data), MtebEncoder(embedder)
    for dim in (256, 128, 64):
        stated = task.evaluate(encoder.at(dim), "test", encode_kwargs={})["default"]
        cosines = np.einsum("ij,ij->i", left.at(dim), right.at(dim))
        assert spearman(cosines, data.scores) == pytest.approx(stated["cosine_spearman"], abs=1e-6)


# --- sweeps -----------------------------------------------------------------------------------------


def test_every_task_type_at_every_dimension_equals_a_run_of_its_own(tmp_path):
    frame = sweep_tasks(StaticEmbedder(), [mock() for mock in MOCKS], dims=[64], out=tmp_path)
    main = main_scores(frame)
    assert sorted(main["dim"].unique()) == [64, 256]
    assert len(main["task_type"].unique()) == len(MOCKS)
    for mock in MOCKS:  # the sweep ran this dimension last: nothing of the first may have stuck to the task
        alone = mteb.evaluate(
            MtebEncoder(StaticEmbedder(), dim=64), mock(), cache=None, show_progress_bar=False
        )
        row = main[(main["task"] == mock.metadata.name) & (main["dim"] == 64)]
        assert row["score"].item() == pytest.approx(alone.task_results[0].get_score(), abs=1e-6), mock


class NoisyClusters(AbsTaskClustering):
    """Clusters that depend on which texts are drawn: labels say little, and a fifth of the texts is used."""

    metadata = LegacyMockClusteringFastTask.metadata.model_copy(
        update={"name": "NoisyClusters", "eval_splits": ["test"]}
    )
    max_fraction_of_documents_to_embed = 0.2
    max_documents_per_cluster = 20
    n_clusters = 3

    def load_data(self, **_):
        texts = [f"{i} {doc}" for i, doc in enumerate(small_retrieval(documents=300).docs)]
        labels = np.random.default_rng(1).integers(0, 5, len(texts)).tolist()
        self.dataset = {"test": Dataset.from_dict({"sentences": texts, "labels": labels})}
        self.data_loaded = True


def test_every_dimension_draws_the_samples_a_run_of_its_own_draws(tmp_path):
    frame = sweep_tasks(StaticEmbedder(), [NoisyClusters()], dims=[128, 64], out=tmp_path)
    scores = main_scores(frame).set_index("dim")["score"]
    for dim in (256, 128, 64):
        alone = mteb.evaluate(
            MtebEncoder(StaticEmbedder(), dim=dim), NoisyClusters(), cache=None, show_progress_bar=False
        )
        assert scores[dim] == pytest.approx(alone.task_results[0].get_score(), abs=1e-6)


@pytest.mark.parametrize("on_disk", [True, False])
def test_all_dimensions_cost_one_encode(tmp_path, on_disk):
    embedder, data = Counting(), small_retrieval()
    cache = VectorCache(tmp_path / "vectors") if on_disk else None
    sweep_tasks(embedder, [local_task(data)], dims=[192, 128, 96, 64], out=tmp_path / "out", cache=cache)
    assert sorted(embedder.texts) == sorted({*data.docs, *data.queries})


def test_instructions_encode_documents_once(tmp_path):
    embedder, data = Counting(QWEN3_PROMPTS), small_retrieval()
    frame = sweep_tasks(
        embedder, [local_task(data)], dims=[64], instructions=["task", "none", "Look"], out=tmp_path
    )
    assert set(frame["instruction"]) == {"task", "none", "Look"}
    documents = [text for text in embedder.texts if text in set(data.docs)]
    assert len(documents) == len(set(data.docs))
    assert len(embedder.texts) == len(documents) + 3 * len(data.queries)


def test_a_sweep_goes_on_where_it_was(tmp_path):
    data = small_retrieval()
    sweep_tasks(StaticEmbedder(), [local_task(data)], dims=[128], out=tmp_path)
    first = Counting()
    frame = sweep_tasks(first, [local_task(data)], dims=[128], out=tmp_path)
    assert not first.texts
    assert set(frame["dim"]) == {256, 128}
    # A file that a killed run left half written is one that is not there.
    damaged = next((tmp_path / "results").glob("*/*/experiments/*/small.json"))
    damaged.write_text(damaged.read_text()[:100])
    second = Counting()
    again = sweep_tasks(second, [local_task(data)], dims=[128], out=tmp_path)
    assert second.texts
    assert again.equals(frame)
    # What the scores were made on: a line a run that made some, none for the one in the middle.
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(runs) == 2
    for run in runs:
        assert (run["tasks"], run["dims"], run["instructions"]) == (["small"], [128, 256], ["task"])
        assert run["versions"]["mteb"] == mteb.__version__
        assert run["hardware"]["cores"]
        assert run["space"]["fingerprint"] == StaticEmbedder().space.fingerprint


def test_results_of_other_content_are_not_taken(tmp_path):
    sweep_tasks(StaticEmbedder(), [local_task(small_retrieval())], dims=[64], out=tmp_path)
    changed = Counting()
    sweep_tasks(changed, [local_task(small_retrieval(documents=50))], dims=[64], out=tmp_path)
    assert changed.texts


def test_mteb_reads_its_own_results(tmp_path, monkeypatch):
    tasks = [local_task(small_retrieval()), local_task(small_sts())]
    frame = sweep_tasks(StaticEmbedder(), tasks, dims=[128, 64], out=tmp_path)
    loaded = mteb.ResultCache(tmp_path).load_results(load_experiments="match_name")
    assert len(loaded.model_results) == 3
    for result in loaded.model_results:
        dim = int((result.experiment_name or "embed_dim_256").removeprefix("embed_dim_"))
        for task_result in result.task_results:
            main = main_scores(frame)
            row = main[(main["task"] == task_result.task_name) & (main["dim"] == dim)]
            assert row["score"].item() == pytest.approx(task_result.get_score(), abs=1e-6)
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    with pytest.warns(DeprecationWarning, match="load_results"):
        plain = mteb.load_results(download_latest=False, validate_and_filter=False)
    assert {result.task_name for result in plain.model_results[0].task_results} == {"small", "small-sts"}


# --- the frame --------------------------------------------------------------------------------------


def test_frame_has_one_row_a_score(tmp_path):
    tasks = [local_task({"de-en": small_sts("a"), "fr-en": small_sts("b")}, name="two")]
    frame = sweep_tasks(StaticEmbedder(), tasks, dims=[64], out=tmp_path)
    key = ["task", "subset", "split", "dim", "instruction", "metric"]
    assert not frame.duplicated(key).any()
    assert set(frame["language"]) == {"deu-Latn,eng-Latn", "fra-Latn,eng-Latn"}
    assert set(frame.loc[frame["main"], "metric"]) == {"cosine_spearman"}
    assert frame["value"].dtype == np.float64
    assert (frame["full_dim"] == 256).all()
    assert read_frame(tmp_path).equals(frame)


def test_score_kept_is_a_ratio_to_the_full_dimension(tmp_path):
    tasks = [local_task(small_retrieval()), local_task(small_sts("one")), local_task(small_sts("other"))]
    frame = sweep_tasks(StaticEmbedder(), tasks, dims=[64], out=tmp_path)
    kept = score_kept(frame).set_index(["task_type", "dim"])
    assert (kept.xs(256, level="dim")["kept"] == 1.0).all()
    assert kept.loc[("STS", 64), "tasks"] == 2
    scores = main_scores(frame).groupby(["task_type", "dim"])["score"].mean()
    expected = scores[("Retrieval", 64)] / scores[("Retrieval", 256)]
    assert kept.loc[("Retrieval", 64), "kept"] == pytest.approx(expected)


def test_benchmark_mean_is_over_tasks_with_an_interval(tmp_path):
    tasks = [local_task(small_retrieval()), local_task(small_sts("one")), MockClassificationTask()]
    frame = sweep_tasks(StaticEmbedder(), tasks, dims=[64], out=tmp_path)
    means = benchmark_means(frame).set_index("dim")
    per_task = main_scores(frame).query("dim == 64")["score"]
    assert means.loc[64, "mean"] == pytest.approx(per_task.mean())
    assert means.loc[64, "low"] <= means.loc[64, "mean"] <= means.loc[64, "high"]
    assert means.loc[256, "kept"] == 1.0


def test_a_folder_without_results_says_so(tmp_path):
    with pytest.raises(ResultsError, match="holds no mteb results"):
        read_frame(tmp_path)


# --- local data and mteb's data ------------------------------------------------------------------------


def test_local_data_survives_the_way_to_mteb_and_back():
    retrieval, sts = small_retrieval(), small_sts()
    bitext = PairSet("small-bitext", sts.left, sts.right)
    for data in (retrieval, sts, bitext):
        back = to_set(local_task(data))
        assert back.content_hash == data.content_hash
        assert back.name == data.name


def test_parallel_folders_become_a_matrix(tmp_path, shared_data):
    task = open_tasks([f"beir:{shared_data / 'xquad'}"])[0]
    assert len(task.hf_subsets) == 25
    assert task.metadata.eval_langs["zh-de"] == ["zho-Hans", "deu-Latn"]
    chinese = load_dataset(f"beir:{shared_data / 'xquad' / 'zh'}")
    german = load_dataset(f"beir:{shared_data / 'xquad' / 'de'}")
    crossed = to_set(task, subset="zh-de")
    assert list(crossed.queries) == list(chinese.queries)
    assert list(crossed.docs) == list(german.docs)


def test_a_folder_of_pair_files_has_a_subset_each(shared_data):
    task = open_tasks([f"pairs:{shared_data / 'tatoeba'}"])[0]
    assert task.metadata.type == "BitextMining"
    assert len(task.hf_subsets) == 15
    assert task.metadata.eval_langs["deu-eng"] == ["deu-Latn", "eng-Latn"]


def test_an_mteb_task_is_a_toolkit_set():
    task = MockRetrievalTask()
    data = to_set(task, split="test")
    assert data.name == "MockRetrievalTask"
    assert len(data.docs) == 2
    assert to_set(MockSTSTask()).kind == "sts"


@pytest.mark.parametrize("name", ["SciFact", "STSBenchmark"])
def test_an_unreachable_hub_names_the_task_in_one_line(tmp_path, name):
    with pytest.raises(DataError, match=f"task {name}: the model hub cannot be reached") as caught:
        sweep_tasks(StaticEmbedder(), open_tasks([name]), out=tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=f"task {name}: "):
        load_dataset(f"mteb:{name}")


def test_other_tasks_run_when_one_cannot_be_loaded(tmp_path):
    class Gated(MockSTSTask):
        metadata = MockSTSTask.metadata.model_copy(update={"name": "GatedSTS"})

        def load_data(self, **_):
            raise FileNotFoundError("dataset is gated")

    with pytest.raises(DataError, match=r"1 of 2 tasks could not be run.*task GatedSTS"):
        sweep_tasks(StaticEmbedder(), [Gated(), local_task(small_sts())], out=tmp_path)
    assert set(read_frame(tmp_path)["task"]) == {"small-sts"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: open_tasks(["SciFac"]), "SciFact"),
        (lambda: open_tasks(benchmark="MTEB(eng, v3)"), "unknown benchmark .*v2"),
        (lambda: open_tasks([]), "no task to run"),
        (lambda: open_tasks(["SciFact"], languages=["deu"]), "no data in deu"),
        (lambda: load_mteb("Banking77Classification"), "only retrieval, STS and bitext"),
        (lambda: load_mteb("XQuADRetrieval"), "choose one, as in mteb:XQuADRetrieval/"),
        (lambda: load_mteb("SciFact", split="dev"), "no split 'dev'"),
    ],
)
def test_names_that_cannot_work_say_what_can(call, message):
    with pytest.raises(PlanError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_benchmark_is_filtered_by_language():
    tasks = open_tasks(benchmark="MTEB(Multilingual, v2)", languages=["deu"])
    assert 20 < len(tasks) < 131
    assert all("deu" in {code[:3] for langs in subsets(task) for code in langs} for task in tasks)
    # mteb's own task objects, which everyone shares, keep their subsets.
    again = {t.metadata.name: len(t.hf_subsets) for t in mteb.get_benchmark("MTEB(Multilingual, v2)").tasks}
    assert any(again[task.metadata.name] > len(task.hf_subsets) for task in tasks)


def subsets(task):
    return [task.metadata.hf_subsets_to_langscripts[subset] for subset in task.hf_subsets]


def test_mixed_kinds_are_no_task():
    with pytest.raises(DataError, match="mixes"):
        local_task({"a": small_sts(), "b": small_retrieval()}, name="both")


def test_loading_twice_is_loading_once():
    task = local_task(small_sts())
    load_task_data(task)
    before = task.dataset
    load_task_data(task)
    assert task.dataset is before


# --- charts -----------------------------------------------------------------------------------------


def test_charts_and_tables_of_a_sweep(tmp_path):
    from toolkit.report.mteb_charts import language_heat_map, write_mteb_report

    crossed = {f"{a}-{b}": small_retrieval(f"{a}-{b}") for a in ("de", "en") for b in ("de", "en")}
    tasks = [local_task(crossed, name="crossed"), local_task(small_sts())]
    frame = sweep_tasks(StaticEmbedder(), tasks, dims=[64], out=tmp_path)
    written = write_mteb_report(tmp_path, frame=frame, kept=score_kept(frame), means=benchmark_means(frame))
    assert all(path.stat().st_size > 0 for path in written)
    assert {path.suffix for path in written} == {".parquet", ".csv", ".png", ".svg"}
    matrix = language_matrix(frame, "crossed", dim=64)
    assert matrix.shape == (2, 2)
    assert matrix.loc["de", "en"] == pytest.approx(matrix.loc["en", "de"])  # the same content here
    assert language_heat_map(matrix, name="crossed").axes[0].texts[0].get_text() == f"{matrix.iloc[0, 0]:.3f}"
    with pytest.raises(ResultsError, match="no subsets of two languages"):
        language_matrix(frame, "small-sts")


def test_differences_to_the_full_dimension_are_paired(tmp_path):
    tasks = [local_task(small_retrieval()), local_task(small_sts("one")), local_task(small_sts("other"))]
    means = benchmark_means(sweep_tasks(StaticEmbedder(), tasks, dims=[64], out=tmp_path)).set_index("dim")
    assert means.loc[64, "difference"] == pytest.approx(means.loc[64, "mean"] - means.loc[256, "mean"])
    assert means.loc[256, ["difference", "difference_low", "difference_high"]].tolist() == [0.0, 0.0, 0.0]
