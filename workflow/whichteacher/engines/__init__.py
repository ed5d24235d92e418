"""What turns prompts into responses: one module per engine, one call that never pays twice.

``respond`` is the way in; ``specs`` says what a response depends on; ``vllm``, ``openai`` and ``reward`` drive
the engines.
"""
