"""Tasks of asyncio that share a model take turns in one thread, and must not steer each other's texts."""

import asyncio

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from steering_cases import answer, push

from babelscope import observe, steer
from babelscope.errors import MeasurementError, SteeringError
from babelscope.models.runners import Runner, running_task

IDS = torch.arange(10, 31).view(3, 7)


@pytest.fixture
def model():
    return tiny_model("llama")


def test_who_is_another():
    runners = []

    async def begin():
        assert running_task() is not None
        runners.append(runner := Runner())
        await asyncio.sleep(0)
        return runner.is_another()

    async def both():
        first, second = asyncio.create_task(begin()), asyncio.create_task(begin())
        await asyncio.sleep(0)
        assert [runner.is_another() for runner in runners] == [True, True]
        assert [await first, await second] == [False, False]
        assert [runner.is_another() for runner in runners] == [False, False]

    assert running_task() is None and not Runner().is_another()
    asyncio.run(both())


async def steered(model, layer, leave):
    """Answers of a task that gives way to others while it steers."""
    with steer(model, push(layer)):
        await asyncio.sleep(0)
        answered = answer(model, IDS)
        await leave.wait()
        return answered


def test_a_task_beside_another_is_told_that_the_model_is_steered(model):
    async def both():
        leave = asyncio.Event()
        first = asyncio.create_task(steered(model, 0, leave))
        await asyncio.sleep(0)
        with pytest.raises(SteeringError, match="another thread or task already"):
            await steered(model, 1, leave)
        with pytest.raises(MeasurementError, match="another thread or task steers"):
            observe(model, tiny_tokenizer(), {"en": ["the cat sat on the mat"]}, shards=2)
        leave.set()
        return await first

    answered = asyncio.run(both())
    with steer(model, push(0)):
        assert torch.equal(answered, answer(model, IDS))


def test_tasks_made_inside_a_context_belong_to_it(model):
    async def family():
        leave = asyncio.Event()
        leave.set()
        with steer(model, push(0)):
            return await asyncio.create_task(steered(model, 1, leave))

    answered = asyncio.run(family())
    with steer(model, push(0)), steer(model, push(1)):
        assert torch.equal(answered, answer(model, IDS))


def test_a_later_task_goes_on_where_an_ended_one_left_off(model):
    """A notebook runs each cell as a task, and people open a context in one cell and close it in another."""
    contexts, here = [steer(model, push(layer)) for layer in range(2)], []

    async def cell(work):
        here.append(work())

    async def notebook():
        for work in (contexts[0].__enter__, contexts[1].__enter__, lambda: answer(model, IDS)):
            await asyncio.create_task(cell(work))

    with steer(model, push(0)), steer(model, push(1)):
        expected = answer(model, IDS)
    asyncio.run(notebook())
    assert torch.equal(here[-1], expected)


def test_a_context_around_the_loop_holds_in_its_tasks(model):
    async def inner():
        return answer(model, IDS)

    with steer(model, push(0)):
        expected = answer(model, IDS)
        assert torch.equal(asyncio.run(inner()), expected)
        observe(model, tiny_tokenizer(), {"en": ["the cat sat on the mat"]}, shards=2)
