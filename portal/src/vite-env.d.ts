declare module "*.json?pseudo" {
  const messages: unknown;
  export default messages;
}
declare module "*.css";
