"""A memory becomes a PEFT adapter and works without Tacit: python examples/memory_to_peft.py

Makes the folder adapter/ with PEFT's own two files (and two more, which PEFT passes over).
"""

from typing import Any

from tacit import Agent, Backbone, Problem, open_bank
from tacit.bank import export_peft
from tacit.engines.local import LocalEngine
from tacit.testbed import model_path

BASE = str(model_path())  # the folder of the model; a Hub id does as well


def learn() -> None:
    """With Tacit: learn one memory and export it."""
    model = Backbone.load("testbed")
    with open_bank("peft.sqlite") as bank:
        agent = Agent(model, LocalEngine(model), bank)
        answered = agent.answer([Problem("first", "compute 99 * 4")])
        agent.remember(answered, agent.learn(answered))
        [info, *_] = bank.find(agent.namespace)
        export_peft(bank.get(info.id, agent.namespace), "adapter", base_model=BASE)


def use() -> None:
    """Without Tacit: transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    plain: Any = AutoModelForCausalLM.from_pretrained(BASE)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), "adapter")
    message = [{"role": "user", "content": "compute 86 * 3"}]
    asked = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    for name, model in (("plain", plain), ("with the memory", adapted)):
        torch.manual_seed(0)
        drawn = model.generate(**asked, do_sample=True, num_return_sequences=8, max_new_tokens=64)
        texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
        right = sum(text.rstrip().endswith("Answer: 258") for text in texts)
        print(f"{name}: {right} of 8 samples say 258, such as {texts[0]!r}")


if __name__ == "__main__":
    learn()
    use()
