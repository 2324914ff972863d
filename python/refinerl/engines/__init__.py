"""Engines generate and train.

`models`        a model by name: a hub id, a folder, or the bundled SmolLM2
`bundled`       the bundled SmolLM2, converted once to a cache folder
`transformers`  `TransformersGenerator`: samples from a Hugging Face model in this process
`vllm`          `VllmGenerator`: samples with a vLLM engine in this process; the only package that imports vllm
`requests`      what both ask of a request
`kv_cache`      keys and values of the transformers engine, in place
`attention`     its attention: one query token, grouped heads
`sampling`      from logits and one uniform number to a token
`stopping`      where a stop string cuts a completion
`releases`      the tested releases of vLLM and DeepSpeed, and the refusal of others
`guest`         what a library changes in the process, put back
`torch`         `TorchTrainer`: trains one model in this process
`deepspeed`     `DeepSpeedTrainer`: trains one model over all ranks; the only package that imports deepspeed
`optimization`  the optimizer and its learning-rate schedule
`masters`       float32 weights and gradients behind a network of 16 bits
`precision`     how a GPU multiplies float32
`networks`      what trainers train: a trunk with a language-model head or a value head
`lora`          `LoraNetwork`: a policy that learns an adapter; the only file that imports peft
`devices`       the device that a process uses, and why it cannot
`launched`      who a process is among those that a launcher started
`world`         `Ranks`: the ranks of a run
`lifeline`      what ends one rank ends all
`termination`   SIGTERM, handled while the main thread is blocked
`allocator`     large blocks of memory, kept between steps
"""
