// room: io
