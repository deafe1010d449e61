// room: quant
