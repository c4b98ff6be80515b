"""Three servers that decide differently about the same room, and must agree afterwards."""

from collections.abc import Sequence

from .agreement import agree
from .pair import person
from .person import Person
from .servers import Server
from .tale import Tale

# Whoever may ban may change the power levels too.
LEVELS = {"events": {"m.room.power_levels": 50}}


class Fork(Tale):
    """A room of the first server's creator, an administrator and a member on each of the three."""

    def __init__(self, servers: Sequence[Server], version: str) -> None:
        super().__init__(" and ".join(server.label for server in servers), version)
        self.servers = servers
        self.room = ""
        self.rulers: list[Person] = []
        self.members: list[Person] = []

    async def before(self) -> None:
        """All are in, and their powers are 100 (or a creator's), 90, 80 and none."""
        self.rulers = [await person(server, "ruler") for server in self.servers]
        self.members = [await person(server, "member") for server in self.servers]
        creator, second, third = self.rulers
        options = {"preset": "public_chat", "power_level_content_override": LEVELS}
        self.room = await creator.create(self.version, **options)
        for somebody in [second, third, *self.members]:
            await somebody.join(self.room, creator.server)
            # A Synapse with partial state does not tell those who came after it: what follows refers to the join.
            await creator.membership(self.room, somebody.user_id, "join")
        given = await creator.give_power(self.room, {second.user_id: 90, third.user_id: 80})
        for somebody in [*self.rulers, *self.members]:
            await somebody.sees(self.room, given)
        # Nobody lacks anybody before the lines are cut.
        await agree(self.room, *self.rulers)

    async def meanwhile(self) -> None:
        """Bans and power against each other, and members who go on."""
        room, (creator, second, third), members = self.room, self.rulers, self.members
        await creator.put("ban", room, members[1])
        await creator.give_power(room, {second.user_id: 0})
        await second.put("ban", room, members[2])
        await second.give_power(room, {third.user_id: 50, members[1].user_id: 60})
        await members[1].set_state(room, "m.room.name", {"name": "by a member who is banned elsewhere"})
        await third.put("ban", room, members[0])
        await third.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
        await third.give_power(room, {members[2].user_id: 70})
        await members[2].put("kick", room, members[1])
        for ruler in self.rulers:
            await ruler.say(room, "does anybody hear me?")
        for somebody in (second, third):
            await somebody.set_state(room, "m.room.topic", {"topic": f"set by {somebody.user_id}"})

    async def after(self) -> None:
        """Whoever may still speak is heard by all, and all know the same."""
        for speaker in self.rulers:
            event_id = await speaker.say(self.room, "again")
            for ruler in self.rulers:
                await ruler.sees(self.room, event_id)
        await agree(self.room, *self.rulers)
