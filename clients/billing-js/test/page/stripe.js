// The part of Stripe.js that the client uses. Confirmations go to the stand-in's payer.
(() => {
  const keys = (window.stripeKeys = []);
  const asked = async (path, body) => {
    const response = await fetch(path, { method: "POST", body: JSON.stringify(body) });
    return response.json();
  };
  const element = () => {
    const listeners = {};
    const tell = (name, event) => (listeners[name] ?? []).forEach((listener) => listener(event));
    return {
      mount: () => setTimeout(() => (tell("ready"), tell("change", { complete: true }))),
      on: (name, listener) => (listeners[name] = [...(listeners[name] ?? []), listener]),
      off: () => {},
      update: () => {},
      destroy: () => {},
      unmount: () => {},
    };
  };
  window.Stripe = (key) => {
    keys.push(key);
    const made = {};
    const elements = {
      create: (name) => (made[name] = element()),
      getElement: (component) => made[component?.__elementType ?? component] ?? null,
      update: () => {},
    };
    return {
      _registerWrapper: () => {},
      registerAppInfo: () => {},
      createToken: () => {},
      createPaymentMethod: () => {},
      elements: () => elements,
      confirmCardSetup: (client_secret) => asked("/payer/setup", { client_secret, payment_method: window.card ?? "pm_card_visa" }),
      confirmCardPayment: (client_secret) => asked("/payer/payment", { client_secret, authenticate: true }),
      paymentRequest: () => ({ canMakePayment: async () => null, on: () => {}, off: () => {}, update: () => {} }),
    };
  };
})();
