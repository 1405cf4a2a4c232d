"""Searches of other tools, in a virtual environment of their own; it knows nothing of rung.

    PEERS/bin/python bench/retrieval_peers.py FOLDER --minilm MODEL

FOLDER holds documents.jsonl and questions.jsonl (id, text). Written is FOLDER/NAME.json for each tool that is here: its
version, seconds to build, milliseconds a query, and the first 20 hits of each question as [id of the document, text].
All are as their first examples show them, but for the number of hits:

- langchain: RecursiveCharacterTextSplitter of 1000 characters with 200 of overlap, in-memory vector store.
- llama-index: SentenceSplitter of 1024 tokens with 20 of overlap, vector index.
- llama-index-bm25: the same nodes, its BM25 retriever with an English stemmer.
- rank-bm25: LangChain's passages, words in lower case, BM25Okapi.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DEPTH = 20
Rows = list[dict[str, str]]
Search = Callable[[str], list[tuple[str, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minilm", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    documents, questions = (_read(options.folder / f"{name}.jsonl") for name in ("documents", "questions"))
    for name in options.only:
        package, build = PEERS[name]
        try:
            installed = version(package)
            started = time.perf_counter()
            search = build(documents, options.minilm)
        except (ImportError, PackageNotFoundError) as missing:
            print(f"{name}: not installed ({missing})", flush=True)
            continue
        built = time.perf_counter()
        hits = {q["id"]: search(q["text"]) for q in questions}
        took = time.perf_counter() - built
        record = {"version": f"{package} {installed}", "build_s": built - started, "query_ms": 1000 * took / len(hits)}
        (options.folder / f"{name}.json").write_text(json.dumps(record | {"hits": hits}, ensure_ascii=False), "utf-8")
        print(f"{name}: {built - started:.1f} s to build, {took:.1f} s to search", flush=True)


def _read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _langchain_passages(documents: Rows) -> list[Any]:
    from langchain_core.documents import Document
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    return list(splitter.split_documents([Document(d["text"], metadata={"source": d["id"]}) for d in documents]))


def langchain(documents: Rows, minilm: str) -> Search:
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_huggingface import HuggingFaceEmbeddings

    store = InMemoryVectorStore(HuggingFaceEmbeddings(model_name=minilm, model_kwargs={"device": "cpu"}))
    store.add_documents(_langchain_passages(documents))

    def search(text: str) -> list[tuple[str, str]]:
        return [(d.metadata["source"], d.page_content) for d in store.similarity_search(text, k=DEPTH)]

    return search


def _llama_nodes(documents: Rows) -> list[Any]:
    from llama_index.core import Document
    from llama_index.core.node_parser import SentenceSplitter

    splitter = SentenceSplitter(chunk_size=1024, chunk_overlap=20)
    return list(splitter.get_nodes_from_documents([Document(text=d["text"], id_=d["id"]) for d in documents]))


def _shown(found: Any) -> list[tuple[str, str]]:
    return [(hit.node.ref_doc_id, hit.node.get_content()) for hit in found]


def llama_index(documents: Rows, minilm: str) -> Search:
    from llama_index.core import VectorStoreIndex
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    index = VectorStoreIndex(_llama_nodes(documents), embed_model=HuggingFaceEmbedding(model_name=minilm, device="cpu"))
    retriever = index.as_retriever(similarity_top_k=DEPTH)
    return lambda text: _shown(retriever.retrieve(text))


def llama_index_bm25(documents: Rows, minilm: str) -> Search:
    import Stemmer
    from llama_index.retrievers.bm25 import BM25Retriever

    nodes = _llama_nodes(documents)
    retriever = BM25Retriever.from_defaults(
        nodes=nodes, similarity_top_k=min(DEPTH, len(nodes)), stemmer=Stemmer.Stemmer("english"), language="english"
    )
    return lambda text: _shown(retriever.retrieve(text))


def rank_bm25(documents: Rows, minilm: str) -> Search:
    from rank_bm25 import BM25Okapi

    passages = _langchain_passages(documents)
    index = BM25Okapi([_words(p.page_content) for p in passages])

    def search(text: str) -> list[tuple[str, str]]:
        scores = index.get_scores(_words(text))
        best = sorted(range(len(passages)), key=lambda i: -scores[i])[:DEPTH]
        return [(passages[i].metadata["source"], passages[i].page_content) for i in best]

    return search


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


PEERS: dict[str, tuple[str, Callable[[Rows, str], Search]]] = {
    "langchain": ("langchain-core", langchain),
    "llama-index": ("llama-index-core", llama_index),
    "llama-index-bm25": ("llama-index-retrievers-bm25", llama_index_bm25),
    "rank-bm25": ("rank-bm25", rank_bm25),
}

if __name__ == "__main__":
    main()
