// room: generate
