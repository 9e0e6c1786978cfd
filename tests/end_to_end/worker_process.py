"""A worker process for the soak: `python -m tests.end_to_end.worker_process BROKER GROUP INSTANCE DATADIR`."""

import asyncio
import random
import signal
import sys
from pathlib import Path

from streamproc.adapters.faust_app import run_agent
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.adapters.state_topic import KafkaStateTopic
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.ports import Delivery, Step
from streamproc.topics import LIVE_CHUNKS, SPEECH_STATE
from tests.worker_world import PARTITIONS, Count, FixedClock, Tally


class Busy(Tally):
    """Takes 1 to 40 ms per chunk, so that inputs of one partition end out of order."""

    async def step(self, state: Count, delivery: Delivery) -> Step[Count]:
        await asyncio.sleep(random.uniform(0.001, 0.04))
        return await super().step(state, delivery)


async def main(broker: str, group: str, instance: str, datadir: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = KafkaClient(broker=broker)
    async with KafkaOutbox(client) as outbox:
        worker = StreamWorker(
            Busy(),
            outbox=outbox,
            states=KafkaStateTopic(client, SPEECH_STATE, outbox=outbox),
            partitions={LIVE_CHUNKS: PARTITIONS},
            clock=FixedClock(),
        )
        await run_agent(
            worker, topics=(LIVE_CHUNKS,), client=client, group=group, instance=instance, datadir=datadir, stop=stop
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
